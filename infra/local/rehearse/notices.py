"""What buckets and DICOM stores of Google tell topics, as their documentation has it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

# A message: its data and its attributes.
Notice = tuple[bytes, Mapping[str, str]]


def object_finalized(shown: Mapping[str, Any]) -> Notice:
    """Of Cloud Storage, with the payload format JSON_API_V1; `shown` is the object's resource."""
    return json.dumps(shown).encode(), {
        "notificationConfig": f"projects/_/buckets/{shown['bucket']}/notificationConfigs/1",
        "eventType": "OBJECT_FINALIZE",
        "payloadFormat": "JSON_API_V1",
        "bucketId": shown["bucket"],
        "objectId": shown["name"],
        "objectGeneration": shown["generation"],
        "eventTime": datetime.now(UTC).isoformat(),
    }


def instance_changed(action: str, path: str) -> Notice:
    """Of the Healthcare API; `action` is StoreInstances or DeleteInstances."""
    return path.encode(), {
        "action": action,
        "lastUpdatedTime": datetime.now(UTC).isoformat(),
        "storeName": path.partition("/dicomWeb/")[0],
    }
