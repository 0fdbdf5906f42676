"""The JSON: read it, check it, instantiate its classes. No model is known here: the registry is given."""

from config.checking.classes import find_class, validate
from config.checking.sections import shared_values, trainer_options
from config.checking.signatures import signature_of
from config.data_spec import DataSpec
from config.foreign import is_refused, narrowed, require_own_place
from config.loading.load import apply_override, load_config
from config.markers import find_markers, refuse_markers
from config.objects import (
    as_object,
    call_with_arguments,
    class_and_arguments,
    group_arguments,
    instantiate,
    values_by_parameter,
)  # fmt: skip
from config.schema import json_schema, schema_text
from config.trained import trained_config
from utils.plugins import load_plugins

__all__ = [
    "DataSpec", "apply_override", "as_object", "call_with_arguments", "class_and_arguments", "find_class",
    "find_markers", "group_arguments", "instantiate", "is_refused", "json_schema", "load_config", "load_plugins",
    "narrowed", "refuse_markers", "require_own_place", "schema_text", "shared_values", "signature_of",
    "trained_config", "trainer_options", "validate", "values_by_parameter",
]  # fmt: skip
