"""Files that somebody else may have written, or that a disk has damaged: read with caps, and refused in one sentence.

No reader runs code, follows a reference out of the file, or takes more memory than its cap. What a reader cannot make
sense of is an `UntrustedError`, which names the file, the rule and what was found.
"""

from dsnn.store.untrusted.arrays import MAX_ARRAYS, arrays, arrays_of, headers, mapped
from dsnn.store.untrusted.files import (
    MAX_TEXT,
    UntrustedError,
    content,
    json_object,
    one_line,
    opened,
    parsed_json,
    parsed_yaml,
    plain,
    printable,
    text,
    yaml_mapping,
)
from dsnn.store.untrusted.hdf5 import Hdf5, hdf5
from dsnn.store.untrusted.safetensors import safetensors

__all__ = [
    "MAX_ARRAYS",
    "MAX_TEXT",
    "Hdf5",
    "UntrustedError",
    "arrays",
    "arrays_of",
    "content",
    "hdf5",
    "headers",
    "json_object",
    "mapped",
    "one_line",
    "opened",
    "parsed_json",
    "parsed_yaml",
    "plain",
    "printable",
    "safetensors",
    "text",
    "yaml_mapping",
]
