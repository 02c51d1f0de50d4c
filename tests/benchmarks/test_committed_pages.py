"""The committed pages are those of the committed ledgers: a change of code or ledger comes with its page."""

import json

from benchmarks.ablation.__main__ import HERE, read
from benchmarks.ablation.report import as_json, as_markdown
from benchmarks.accuracy.publish import document_of
from benchmarks.accuracy.report import markdown


def test_the_accuracy_page_is_that_of_its_ledger() -> None:
    document = document_of(HERE / "accuracy.jsonl")
    assert json.loads((HERE / "accuracy.json").read_text(encoding="utf-8")) == document
    assert (HERE / "ACCURACY.md").read_text(encoding="utf-8") == markdown(document)


def test_the_ablation_page_is_that_of_its_ledger() -> None:
    content = as_json(read(HERE / "ablation.jsonl", there=True))
    assert json.loads((HERE / "ablation.json").read_text(encoding="utf-8")) == json.loads(json.dumps(content))
    assert (HERE / "ABLATION.md").read_text(encoding="utf-8") == as_markdown(content)
