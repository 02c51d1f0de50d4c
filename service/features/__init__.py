"""The feature contract: raw values to ids, in one place for training, export and service.

Two pure steps: `field.token(raw)`, then `vocabulary.id(token)`. Fitting is token and count, encoding is token and
look-up. See `fields`, `vocabulary` and `encoder`, in that order.
"""

from service.features.edges import log_squared_edges, quantile_edges
from service.features.encoder import ColumnSlice, FeatureEncoder
from service.features.errors import (
    FeatureError,
    FieldValueError,
    MisplacedFieldError,
    NoCandidatesError,
    RaggedColumnsError,
    RequestError,
    SchemaError,
    StructureError,
    UnknownFieldError,
)
from service.features.fields import CategoricalField, Field, MultiValuedField, NumericField, Pooling, RawValue, Side
from service.features.vocabulary import MISSING, OUT_OF_VOCABULARY, PAD, AnyVocabulary, HashedVocabulary, Vocabulary

__all__ = [
    "MISSING",
    "OUT_OF_VOCABULARY",
    "PAD",
    "AnyVocabulary",
    "CategoricalField",
    "ColumnSlice",
    "FeatureEncoder",
    "FeatureError",
    "Field",
    "FieldValueError",
    "HashedVocabulary",
    "MisplacedFieldError",
    "MultiValuedField",
    "NoCandidatesError",
    "NumericField",
    "Pooling",
    "RaggedColumnsError",
    "RawValue",
    "RequestError",
    "SchemaError",
    "Side",
    "StructureError",
    "UnknownFieldError",
    "Vocabulary",
    "log_squared_edges",
    "quantile_edges",
]
