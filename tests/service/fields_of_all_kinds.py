"""One field of every kind and use, with vocabularies of every form."""

from service.features import CategoricalField, HashedVocabulary, MultiValuedField, NumericField, Vocabulary

FIELDS = (
    CategoricalField("user", "context"),
    MultiValuedField("tags", "candidate", 3),
    NumericField("hour", "context", (6.0, 12.0)),
    CategoricalField("ad", "candidate"),
    NumericField("price", "candidate", (1.0, 2.5)),
    CategoricalField("position", "candidate", "1"),
    MultiValuedField("genres", "candidate", 2, "mean", ",", ["x", "y"]),
)
VOCABULARIES = {
    "user": Vocabulary(["u1", "7", "a\nb\0"]),
    "tags": Vocabulary(["x", "y"], 3),
    "hour": Vocabulary(["1", "0", "2"]),
    "ad": Vocabulary(["a1", "a2"], packed=True),
    "price": HashedVocabulary(100),
    "position": Vocabulary(["1", "2"]),
    "genres": Vocabulary(["x"], 3),
}
