"""Read actions from documents: {"type": "set", "tag": "StationName", "value": "CT-1"}.

Every type of action has one reader in ACTION_READERS.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from msgspec import Struct

from shared.dicom.paths import AttributePath
from shared.dicom.transfer_syntaxes import TARGETS
from shared.dicom.values import KNOWN_VRS
from shared.rules.actions import (
    FOR_ONE_DESTINATION,
    Action,
    Affix,
    Copy,
    Crosswalk,
    Delete,
    DeleteSelected,
    Discard,
    Hold,
    KeepOnly,
    Reject,
    RemoveDestination,
    Route,
    Set,
    SetPriority,
    Stop,
    Transcode,
    Transform,
    TransformSelected,
    ValueChange,
    tags_of,
)
from shared.rules.claims import kind_of_attribute
from shared.rules.comparisons import Kind, linear_regex
from shared.rules.crosswalk import CrosswalkOutline, Miss
from shared.rules.reading import Faults, Fields, kind_of, nearest, read_attribute
from shared.rules.selection import Selection, parse_selection
from shared.rules.standardize import Standardize
from shared.rules.static_values import (
    check_deletion,
    check_literal,
    check_result,
    check_selection,
    check_target,
    check_text,
    one_of_each_vr,
)
from shared.rules.templates import Template, parse_template
from shared.rules.uids import transfer_syntax_keyword, transfer_syntax_uids
from shared.rules.value_changes import (
    PLAIN_CHANGES,
    Hash,
    MapValues,
    NewUid,
    Pad,
    Plain,
    RegexReplace,
    Shift,
    Truncate,
)

MAX_ACTIONS: Final = 500  # of one rule
NOT_AUTHORIZED: Final = 0x0124  # PS3.7 C.5.15
# What C-STORE may answer when it refuses (PS3.4 B.2.3, PS3.7 9.1.1.1.9).
_STATUS_RANGES: Final = ((0x0122, 0x0122), (0x0124, 0x0124), (0xA700, 0xA7FF), (0xA900, 0xA9FF))
_CANNOT_UNDERSTAND: Final = (0xC000, 0xCFFF)
_STATUS: Final = re.compile(r"(?:0[xX])?([0-9a-fA-F]{4})[hH]?")
_DATE_VRS: Final = frozenset({"DA", "DT"})
_ANY_NEW_UID: Final = f"2.25.{(1 << 128) - 1}"

Check = Callable[[AttributePath], str]


class Known(Struct, frozen=True):
    """What actions may refer to. None stands where it is not known."""

    destinations: Collection[str] | None = None
    crosswalks: Mapping[str, CrosswalkOutline | None] | None = None
    standardizers: Collection[str] | None = None


def read_actions(
    document: Any, path: str, faults: Faults, known: Known, *, for_one: bool = False
) -> tuple[Action, ...]:
    """A list of actions; `for_one` allows only those that make sense for one destination."""
    if not isinstance(document, (list, tuple)):
        faults.add(path, f"must be a list of actions, not {kind_of(document)}")
        return ()
    if len(document) > MAX_ACTIONS:
        faults.add(path, f"has {len(document)} actions, at most {MAX_ACTIONS} are allowed")
        return ()
    found = []
    for number, one in enumerate(document):
        at = f"{path}[{number}]"
        action = _read_action(Fields(one, at, faults), known)
        if action is None:
            continue
        if for_one and not isinstance(action, (*FOR_ONE_DESTINATION, Standardize)):
            faults.add(f"{at}.type", "cannot be done for one destination alone")
        found.append(action)
    return tuple(found)


def _read_action(fields: Fields, known: Known) -> Action | None:
    kind = fields.text("type")
    reader = ACTION_READERS.get(kind)
    if reader is None:
        if kind:
            hint = nearest(kind, ACTION_READERS)
            fields.fault("type", f"{kind[:100]!r} is no type of action", hint)
        return None
    action = reader(fields, known)
    fields.close()
    return action


# ---- edits ----------------------------------------------------------------------------------


def _set(fields: Fields, known: Known) -> Action:
    faults_before = len(fields.faults)
    path = _attribute(fields, "tag", check_target)
    vr = _vr(fields)
    raw = fields.required("value")
    items = list(raw) if isinstance(raw, (list, tuple)) else [raw]
    values: list[Template | int | float] = []
    for item in items if fields.has("value") else []:
        if isinstance(item, str):
            values.append(_template(item, fields, "value"))
        elif isinstance(item, (int, float)) and not isinstance(item, bool):
            values.append(item)
        else:
            fields.fault("value", f"must be text or a number, not {kind_of(item)}")
    kind = fields.raw("type")
    if_missing = kind == "set_if_missing" or fields.flag("if_missing", False)
    action = Set(path, tuple(values), vr, if_missing)
    if len(fields.faults) == faults_before:
        _check(fields, "value", action)
    return action


def _delete(fields: Fields, known: Known) -> Action:
    if fields.has("pattern"):
        selection = _selection(fields, "pattern")
        if reason := check_selection(selection):
            fields.fault("pattern", f"cannot delete {reason}")
        return DeleteSelected(selection)
    return Delete(_paths(fields, check_deletion))


def _keep_only(fields: Fields, known: Known) -> Action:
    return KeepOnly(tags_of(fields.attributes("tags")))


def _copy(fields: Fields, known: Known) -> Action:
    is_move = fields.raw("type") == "move"
    source = _attribute(fields, "from", check_deletion if is_move else _nothing_wrong)
    target = _attribute(fields, "to", check_target)
    if kind_of_attribute(source) is Kind.SEQUENCE:
        fields.fault("from", f"{source} is a Sequence, which has no Values")
    if source.has_any_item and is_move:
        fields.fault("from", "must name one Attribute, without [*]")
    if source == target:
        fields.fault("to", "must not be the source")
    return Copy(source, target, moves=is_move)


def _prepend(fields: Fields, known: Known) -> Action:
    path = _attribute(fields, "tag", check_text)
    return Affix(path, before=_template(fields.text("value"), fields, "value"))


def _suffix(fields: Fields, known: Known) -> Action:
    path = _attribute(fields, "tag", check_text)
    return Affix(path, after=_template(fields.text("value"), fields, "value"))


def _regex_replace(fields: Fields, known: Known) -> Action:
    pattern = fields.text("pattern")
    replacement = fields.text("replacement", "", empty=True)
    ignore_case = fields.flag("ignore_case", False)
    only_first = fields.flag("only_first", False)
    change: ValueChange = Plain("trim")
    if not fields.faults.can_take_patterns:
        return Transform(_paths(fields), change)
    try:
        change = RegexReplace(pattern, replacement, ignore_case, only_first)
        regex = linear_regex(pattern, ignore_case=ignore_case)
        fields.faults.count_pattern(fields.at("pattern"), regex.programsize)
    except ValueError as error:
        fields.fault("replacement" if "replacement" in str(error) else "pattern", str(error))
    return Transform(_paths(fields), change)


def _map(fields: Fields, known: Known) -> Action:
    paths = _paths(fields)
    kinds = one_of_each_vr(paths)
    table = []
    if not fields.has("values"):
        fields.fault("values", "is missing")
    for path, old, new in fields.pairs("values"):
        if not isinstance(new, str):
            fields.faults.add(path, f"must be text, not {kind_of(new)}", "put it in quotes")
            continue
        _check_results(kinds, new, fields, path)
        table.append((old, new))
    default = fields.text("default", empty=True) if fields.has("default") else None
    if default is not None:
        _check_results(paths, default, fields, fields.at("default"))
    misses = {"keep": False, "fail": True}
    fails = fields.choice("on_miss", misses, "keep")
    if fails and default is not None:
        fields.fault("on_miss", "cannot fail where there is a default")
    ignore_case = fields.flag("ignore_case", False)
    if ignore_case and len({old.casefold() for old, _ in table}) < len(table):
        fields.fault("values", "has two entries that differ only in case")
    return Transform(paths, MapValues(tuple(table), ignore_case, default, fails))


def _plain(fields: Fields, known: Known) -> Action:
    kind = str(fields.raw("type"))
    paths = _paths(fields)
    if kind in ("lower", "title"):
        capital = [path for path in paths if not check_result(path, "AA")]
        _check_results(tuple(capital), "aa", fields)
    return Transform(paths, Plain(kind))


def _pad(fields: Fields, known: Known) -> Action:
    width = fields.integer("width", None, 1, 1_024)
    character = fields.text("character", "0")
    if len(character) != 1:
        fields.fault("character", "must be one character")
    at_end = fields.choice("side", {"left": False, "right": True}, "left")
    return Transform(_paths(fields), Pad(width, character[:1] or "0", at_end))


def _truncate(fields: Fields, known: Known) -> Action:
    return Transform(_paths(fields), Truncate(fields.integer("length", None, 1, 10_240)))


def _hash(fields: Fields, known: Known) -> Action:
    length = fields.integer("length", 16, 8, 64)
    paths = _paths(fields)
    _check_results(paths, "a" * length, fields)
    return Transform(paths, Hash(length))


def _new_uid(fields: Fields, known: Known) -> Action:
    paths = _paths(fields)
    _check_results(paths, _ANY_NEW_UID, fields)
    return Transform(paths, NewUid())


def _shift(fields: Fields, known: Known) -> Action:
    change = Shift(
        days=fields.integer("days", 0, -40_000, 40_000),
        seconds=fields.integer("seconds", 0, -86_399, 86_399),
        per=fields.attribute("per") if fields.has("per") else None,
        max_days=fields.integer("max_days", 365, 1, 40_000) if fields.has("per") else 0,
    )
    if change.per is not None and (change.days or change.seconds):
        fields.fault("per", "decides the days by itself; leave out days and seconds")
    if change.per is None and not (change.days or change.seconds):
        fields.fault("days", "is missing", "or give seconds, or per: PatientID")
    if fields.has("tag") or fields.has("tags"):
        return Transform(_paths(fields), change)
    vrs = _DATE_VRS | ({"TM"} if change.seconds else set())
    return TransformSelected(Selection(vrs=vrs), change)


def _crosswalk(fields: Fields, known: Known) -> Action:
    name = fields.text("map")
    outline = _outline(name, fields, known)
    match = _match(fields, outline)
    outputs = []
    for path, attribute, column in fields.pairs("set"):
        if not isinstance(column, str) or not column:
            fields.faults.add(path, "must name an output of the map")
            continue
        if outline is not None and column not in outline.outputs:
            hint = nearest(column, outline.outputs)
            fields.faults.add(path, f"{column[:100]!r} is no output of the map", hint)
        target = read_attribute(attribute, path, fields.faults)
        if reason := check_target(target):
            fields.faults.add(path, reason)
        outputs.append((target, column))
    if not match:
        hint = "" if outline else "or put the map's `crosswalk_maps` into the same file"
        fields.fault("match", "is missing or empty", hint)
    if not outputs:
        fields.fault("set", "is missing or empty")
    on_miss = fields.choice("on_miss", {miss.value: miss for miss in Miss}, "keep")
    return Crosswalk(name, tuple(match), tuple(outputs), on_miss)


def _match(fields: Fields, outline: CrosswalkOutline | None) -> list[tuple[str, AttributePath]]:
    """`match`, or without it the Attributes that the map names."""
    match = []
    if fields.has("match") or outline is None:
        pairs = fields.pairs("match")
    else:
        pairs = [(fields.at("match"), *key) for key in outline.keys.items() if key[1]]
    for path, column, attribute in pairs:
        match.append((column, read_attribute(attribute, path, fields.faults)))
        if outline is not None and column not in outline.keys:
            fields.faults.add(path, "is no key of the map", nearest(column, outline.keys))
    if outline is not None:
        absent = [column for column in outline.keys if column not in dict(match)]
        if absent:
            fields.fault("match", f"must say what the map's key {absent[0]} is matched with")
    return match


def _outline(name: str, fields: Fields, known: Known) -> CrosswalkOutline | None:
    if known.crosswalks is None or not name:
        return None
    if name not in known.crosswalks:
        hint = nearest(name, known.crosswalks)
        fields.fault("map", f"there is no crosswalk map {name[:100]!r}", hint)
    return known.crosswalks.get(name)


def _standardize(fields: Fields, known: Known) -> Action:
    name = fields.text("standardizer")
    if known.standardizers is not None and name and name not in known.standardizers:
        hint = nearest(name, known.standardizers)
        fields.fault("standardizer", f"there is no standardizer {name[:100]!r}", hint)
    return Standardize(name)


# ---- decisions ------------------------------------------------------------------------------


def _route(fields: Fields, known: Known) -> Action:
    return Route(_destinations(fields, known))


def _remove_destination(fields: Fields, known: Known) -> Action:
    return RemoveDestination(_destinations(fields, known))


def _hold(fields: Fields, known: Known) -> Action:
    return Hold(fields.text("reason", "a rule holds it"))


def _discard(fields: Fields, known: Known) -> Action:
    return Discard(fields.text("reason", "a rule discards it"))


def _reject(fields: Fields, known: Known) -> Action:
    status = _read_status(fields) if fields.has("status") else NOT_AUTHORIZED
    return Reject(status, fields.text("reason", "a rule refuses it"))


def _stop(fields: Fields, known: Known) -> Action:
    return Stop(fields.choice("scope", {"all": "all", "ruleset": "ruleset"}, "all"))


def _set_priority(fields: Fields, known: Known) -> Action:
    return SetPriority(fields.choice("priority", {"high": True, "normal": False}))


def _transcode(fields: Fields, known: Known) -> Action:
    name = fields.text("transfer_syntax")
    uids: tuple[str, ...] = ()
    if name:
        try:
            uids = transfer_syntax_uids(name)
        except ValueError as error:
            fields.fault("transfer_syntax", str(error))
        if len(uids) > 1:
            fields.fault("transfer_syntax", "must be one Transfer Syntax, not a group of them")
        elif uids and uids[0] not in TARGETS:
            fields.fault(
                "transfer_syntax",
                f"{uids[0]} cannot be made here: only what loses nothing",
                f"one of {', '.join(map(transfer_syntax_keyword, sorted(TARGETS)))}",
            )
    on_failure = fields.choice("on_failure", {"fail": False, "send_as_is": True}, "fail")
    return Transcode(uids[0] if uids else "", on_failure)


ACTION_READERS: Final[Mapping[str, Callable[[Fields, Known], Action]]] = {
    "set": _set,
    "set_if_missing": _set,
    "delete": _delete,
    "keep_only": _keep_only,
    "copy": _copy,
    "move": _copy,
    "prepend": _prepend,
    "suffix": _suffix,
    "append": _suffix,
    "regex_replace": _regex_replace,
    "map": _map,
    **dict.fromkeys(PLAIN_CHANGES, _plain),
    "pad": _pad,
    "truncate": _truncate,
    "hash": _hash,
    "new_uid": _new_uid,
    "shift": _shift,
    "crosswalk": _crosswalk,
    "standardize": _standardize,
    "route": _route,
    "add_destination": _route,
    "remove_destination": _remove_destination,
    "hold": _hold,
    "discard": _discard,
    "reject": _reject,
    "stop": _stop,
    "set_priority": _set_priority,
    "transcode": _transcode,
}


def _paths(fields: Fields, check: Check = check_text) -> tuple[AttributePath, ...]:
    """`tag`, or `tags`; `check` says what is wrong with each."""
    if not fields.has("tags"):
        return (_attribute(fields, "tag", check),)
    if fields.has("tag"):
        fields.fault("tag", "and tags exclude each other")
    paths = fields.attributes("tags")
    for reason in filter(None, map(check, paths)):
        fields.fault("tags", reason)
    return paths


def _attribute(fields: Fields, key: str, check: Check) -> AttributePath:
    path = fields.attribute(key)
    if reason := check(path):
        fields.fault(key, reason)
    return path


def _nothing_wrong(path: AttributePath) -> str:
    return ""


def _check_results(
    paths: tuple[AttributePath, ...], text: str, fields: Fields, place: str = ""
) -> None:
    """Refuse what the action makes of a Value if no Value of the Attribute can be that."""
    for reason in filter(None, (check_result(path, text) for path in one_of_each_vr(paths))):
        key = "tags" if fields.has("tags") else "tag"
        fields.faults.add(place or fields.at(key), reason)


def _vr(fields: Fields) -> str | None:
    if not fields.has("vr"):
        return None
    vr = fields.text("vr")
    if vr not in KNOWN_VRS or vr == "SQ":
        fields.fault("vr", f"{vr[:10]!r} is no VR that can be set", nearest(vr, KNOWN_VRS))
    return vr


def _template(text: str, fields: Fields, key: str) -> Template:
    try:
        return parse_template(text)
    except ValueError as error:
        fields.fault(key, str(error))
        return Template("", ())


def _selection(fields: Fields, key: str) -> Selection:
    try:
        return parse_selection(fields.texts(key))
    except ValueError as error:
        fields.fault(key, str(error))
        return Selection()


def _destinations(fields: Fields, known: Known) -> tuple[str, ...]:
    key = "destination" if fields.has("destination") else "destinations"
    names = fields.texts(key)
    for name in names:
        check_destination(name, fields.at(key), fields.faults, known)
    return names


def check_destination(name: str, path: str, faults: Faults, known: Known) -> None:
    """Note a fault if the name is that of no destination."""
    if known.destinations is not None and name and name not in known.destinations:
        hint = nearest(name, known.destinations)
        faults.add(path, f"there is no destination {name[:100]!r}", hint)


def _read_status(fields: Fields) -> int:
    value = fields.raw("status")
    found = _STATUS.fullmatch(value) if isinstance(value, str) else None
    status = int(found[1], 16) if found else value
    ranges = (*_STATUS_RANGES, _CANNOT_UNDERSTAND)
    if not isinstance(status, int) or not any(low <= status <= high for low, high in ranges):
        fields.fault("status", 'must be a failure of C-STORE such as "0124H", "A700H", "C000H"')
        return NOT_AUTHORIZED
    return status


def _check(fields: Fields, key: str, action: Set) -> None:
    """Refuse literal Values that break the VR, before an Instance meets them."""
    literals: list[str | int | float] = []
    for value in action.values:
        literal = value.literal if isinstance(value, Template) else value
        if literal is None:
            return
        literals.append(literal)
    reason = check_literal(action.path, literals, action.vr)
    if reason:
        fields.fault(key, reason)
