"""What may be written for names inside a deployment: variables, resources, volumes and more. Pure.

The command line checks a deployment file with it, the autoscaler what it is sent.
"""

import re

from services.wire.names import is_id

MAX_ENVIRONMENT_NAME_CHARACTERS = 128
MAX_ENVIRONMENT_VALUE_BYTES = 4096
MAX_ACCELERATOR_TYPE_CHARACTERS = 63
MAX_FUNCTION_CHARACTERS = 255
MAX_IMAGE_CHARACTERS = 255

# What the node agent sets itself: where Triton and its Python are, which GPUs a replica has, and
# how many CPUs.
RESERVED_VARIABLES = (
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "PATH",
    "PYTHONHOME",
    "CUDA_VISIBLE_DEVICES",
    "FOREBAY_CPUS",
)
RESERVED_PREFIXES = ("NVIDIA_", "FOREBAY_VOLUME_")
RESERVED = (
    ", ".join((*RESERVED_VARIABLES, *(f"{prefix}*" for prefix in RESERVED_PREFIXES[:-1])))
    + f" and {RESERVED_PREFIXES[-1]}*"
)
"""What is reserved, in words."""

MAX_VOLUMES = 16
"""That one deployment may name."""
_READ_ONLY = "-read-only"

LEGAL_VARIABLE = (
    "letters, digits and '_', not starting with a digit, at most "
    f"{MAX_ENVIRONMENT_NAME_CHARACTERS} characters"
)
LEGAL_VALUE = f"text of at most {MAX_ENVIRONMENT_VALUE_BYTES} bytes without NUL"
LEGAL_VOLUME = (
    f"1 to 63 of a-z, 0-9 and '-', starting with a letter and not ending with '-' or '{_READ_ONLY}'"
)
LEGAL_RESOURCE = "1 to 63 of a-z, 0-9, '_' and '-', starting with a letter"
LEGAL_ACCELERATOR_TYPE = (
    "part of a GPU's product name, such as L4 or A100, of at most "
    f"{MAX_ACCELERATOR_TYPE_CHARACTERS} characters"
)
LEGAL_IMAGE = (
    f"name:tag or name@sha256: and 64 hexadecimal digits, at most {MAX_IMAGE_CHARACTERS} "
    "characters, such as registry.example.com/triton:24.10-py3"
)
LEGAL_FUNCTION = f"package.module:function, of at most {MAX_FUNCTION_CHARACTERS} characters"

_WORD = r"[A-Za-z_][A-Za-z0-9_]*"
_VARIABLE = re.compile(_WORD)
_RESOURCE = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_ACCELERATOR_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]*")
# The grammar of references (distribution/reference, reference.go): host, path, tag and digest.
_HOST_PART = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_PATH_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_TAG = r":[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"@sha256:[0-9a-f]{64}"
_IMAGE = re.compile(
    rf"(?:{_HOST_PART}(?:\.{_HOST_PART})*(?::[0-9]{{1,5}})?/)?{_PATH_PART}(?:/{_PATH_PART})*"
    rf"(?:{_TAG}(?:{_DIGEST})?|{_DIGEST})"
)
_FUNCTION = re.compile(rf"{_WORD}(\.{_WORD})*:{_WORD}")


def is_variable(text: str) -> bool:
    """Whether `text` may name an environment variable."""
    return len(text) <= MAX_ENVIRONMENT_NAME_CHARACTERS and _VARIABLE.fullmatch(text) is not None


def is_reserved(variable: str) -> bool:
    """Whether the node agent sets a variable itself."""
    return variable in RESERVED_VARIABLES or variable.startswith(RESERVED_PREFIXES)


def is_variable_value(text: str) -> bool:
    """Whether `text` may be the value of an environment variable."""
    return "\0" not in text and len(text.encode()) <= MAX_ENVIRONMENT_VALUE_BYTES


def is_volume(text: str) -> bool:
    """Whether `text` may name a volume."""
    # Otherwise the variable of one volume would be the read-only mark of another.
    return is_id(text) and not text.endswith(_READ_ONLY)


def volume_variable(name: str) -> str:
    """The environment variable in which a replica finds the path of a volume.

    That of a volume which it may only read is also there with `_READ_ONLY` after it, as `1`.
    """
    return f"FOREBAY_VOLUME_{name.upper().replace('-', '_')}"


def read_only_variable(name: str) -> str:
    """The environment variable that is `1` if a replica may only read a volume."""
    return f"{volume_variable(name)}{_READ_ONLY.upper().replace('-', '_')}"


def is_resource(text: str) -> bool:
    """Whether `text` may name a custom resource, of a deployment or of a node."""
    return _RESOURCE.fullmatch(text) is not None


def is_accelerator_type(text: str) -> bool:
    """Whether `text` may be looked for in the product name of a GPU."""
    return len(text) <= MAX_ACCELERATOR_TYPE_CHARACTERS and bool(_ACCELERATOR_TYPE.fullmatch(text))


def is_image(text: str) -> bool:
    """Whether `text` may name the image of a replica's container.

    It must have a tag or a digest: what a name alone stands for may change unseen.
    """
    return len(text) <= MAX_IMAGE_CHARACTERS and _IMAGE.fullmatch(text) is not None


def is_function(text: str) -> bool:
    """Whether `text` may name a Python function, as `package.module:function`."""
    return len(text) <= MAX_FUNCTION_CHARACTERS and _FUNCTION.fullmatch(text) is not None
