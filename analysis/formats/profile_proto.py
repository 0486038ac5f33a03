"""The messages of pprof's ``profile.proto`` (github.com/google/pprof, proto/profile.proto).

No package of PyPI that is kept up has them; ``protobuf`` itself makes the classes here, from
names and numbers of the fields.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["Profile"]

_FIELDS: dict[str, dict[str, tuple[int, str]]] = {
    # A type with [] is repeated.
    "ValueType": {"type": (1, "int64"), "unit": (2, "int64")},
    "Label": {
        "key": (1, "int64"),
        "str": (2, "int64"),
        "num": (3, "int64"),
        "num_unit": (4, "int64"),
    },
    "Sample": {"location_id": (1, "uint64[]"), "value": (2, "int64[]"), "label": (3, "Label[]")},
    "Mapping": {
        "id": (1, "uint64"),
        "memory_start": (2, "uint64"),
        "memory_limit": (3, "uint64"),
        "file_offset": (4, "uint64"),
        "filename": (5, "int64"),
        "build_id": (6, "int64"),
        "has_functions": (7, "bool"),
        "has_filenames": (8, "bool"),
        "has_line_numbers": (9, "bool"),
        "has_inline_frames": (10, "bool"),
    },
    "Line": {"function_id": (1, "uint64"), "line": (2, "int64")},
    "Location": {
        "id": (1, "uint64"),
        "mapping_id": (2, "uint64"),
        "address": (3, "uint64"),
        "line": (4, "Line[]"),
    },
    "Function": {
        "id": (1, "uint64"),
        "name": (2, "int64"),
        "system_name": (3, "int64"),
        "filename": (4, "int64"),
        "start_line": (5, "int64"),
    },
    "Profile": {
        "sample_type": (1, "ValueType[]"),
        "sample": (2, "Sample[]"),
        "mapping": (3, "Mapping[]"),
        "location": (4, "Location[]"),
        "function": (5, "Function[]"),
        "string_table": (6, "string[]"),
        "duration_nanos": (10, "int64"),
        "comment": (13, "int64[]"),
        "default_sample_type": (14, "int64"),
    },
}
_PACKAGE = "perftools.profiles"


def _profile() -> Any:  # noqa: ANN401 - a class that protobuf makes
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="pretake/profile.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, (number, told) in fields.items():
            kind = told.removesuffix("[]")
            made = message.field.add(name=field, number=number)
            made.label = kinds.LABEL_REPEATED if kind != told else kinds.LABEL_OPTIONAL
            if kind in _FIELDS:
                made.type = kinds.TYPE_MESSAGE
                made.type_name = f".{_PACKAGE}.{kind}"
            else:
                made.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindMessageTypeByName(f"{_PACKAGE}.Profile")
    return message_factory.GetMessageClass(found)


Profile = _profile()
"""The class of the message ``Profile``."""
