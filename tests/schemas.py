"""JSON schemas of models, made once: most of what building the application costs."""

from __future__ import annotations

import pickle
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import pytest
from pydantic import BaseModel, create_model


def remember_schemas(patch: pytest.MonkeyPatch) -> None:
    """Have each model make its schema once for the same arguments; every caller has its own copy.

    Hundreds of tests build an application of their own, which asks for more than 300 schemas.
    """
    make = BaseModel.model_json_schema
    made: WeakKeyDictionary[type[BaseModel], dict[str, bytes]] = WeakKeyDictionary()

    def model_json_schema(cls: type[BaseModel], *arguments: Any, **named: Any) -> dict[str, Any]:
        of_model = made.setdefault(cls, {})
        wanted = repr((arguments, sorted(named.items())))
        if wanted not in of_model:
            of_model[wanted] = pickle.dumps(make.__func__(cls, *arguments, **named))  # type: ignore[attr-defined]
        schema: dict[str, Any] = pickle.loads(of_model[wanted])
        return schema

    # The same class, where one is made anew for each application.
    patch.setattr("shared.web.configuration.create_model", cache(create_model))
    patch.setattr(BaseModel, "model_json_schema", classmethod(model_json_schema))
