"""All about the JSON: read it, check it, build what it describes. Knows no model: it is given the catalogue."""

from config.build import build, build_list, callable_args
from config.load import load_config
from config.markers import find_markers, refuse_markers
from config.plugins import load_plugins
from config.schema import json_schema, schema_text
from config.sections import trainer_options
from config.shared import shared_values
from config.validate import validate

__all__ = [
    "build",
    "build_list",
    "callable_args",
    "find_markers",
    "json_schema",
    "load_config",
    "load_plugins",
    "refuse_markers",
    "schema_text",
    "shared_values",
    "trainer_options",
    "validate",
]
