"""What the load tool sends: raw rows in every form, scored by the real service as by hand."""

from __future__ import annotations

import csv
import gzip
import json
import socket
import threading
from itertools import pairwise
from typing import TYPE_CHECKING

import polars as pl
import pytest
from serving import DROPPED, FIELDS, MODEL_ID, ROW_CANDIDATES, HandModel, Server

from service.bench import Body, BodyError, Target, TargetError, parse_target
from service.bench.bodies import FORMS, body_file, distinct_rows, make_bodies
from service.bench.http import AnswerReader
from service.bench.probe import check_answer, probe, served_model
from service.bench.rows import Row, bundle_fields, bundle_model, golden_rows, table_rows
from service.features import FeatureEncoder, MultiValuedField, Vocabulary
from service.openinference.document import decode, split
from service.openinference.encode import TensorEncoder

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

PATHS = {form: f"/v2/models/{MODEL_ID}/infer" if form.startswith("oip") else "/score" for form in FORMS}
# A float beside text, integers beyond 64 bits, several values as text and as an array, all kinds of missing.
ROWS = [
    Row({"user": "u1", "hour": 2}, {"ad": "a1", "price": 0.5, "tags": ["x", "y"]}),
    Row({"user": 7, "hour": 10.5}, {"ad": "é", "price": None, "tags": []}),
    Row({"user": None, "hour": None}, {"ad": 10**30, "price": 11, "tags": ["unseen", "x"]}),
    Row({"hour": 0}, {"ad": "", "price": 3}),
]


def scores_of(answer: httpx.Response, form: str) -> list[float]:
    if form == "msgpack":
        import msgspec

        return list(msgspec.msgpack.decode(answer.content)["scores"])
    if form == "oip-binary":
        import numpy as np

        size = int(answer.headers["inference-header-content-length"])
        return list(np.frombuffer(answer.content[size:], "<f4").astype(float))
    document = answer.json()
    return list(document["outputs"][0]["data"] if form == "oip" else document["scores"])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("candidates", [1, 3, 9])
def test_every_form_of_the_same_rows_gets_the_scores_worked_out_by_hand(
    client: httpx.Client, hand_model: HandModel, form: str, candidates: int
) -> None:
    rows = [row for row in ROWS if not (form == "msgpack" and row.candidate["ad"] == 10**30)]
    bodies = make_bodies(rows, candidates=candidates, form=form)
    assert len(bodies) == len(rows)
    for start, body in enumerate(bodies):
        assert body.candidates == candidates
        headers = {"content-type": body.content_type, **dict(body.headers)}
        answer = client.post(PATHS[form], content=body.content, headers=headers)
        assert answer.status_code == 200, answer.text
        chosen = [rows[(start + step) % len(rows)] for step in range(candidates)]
        context = [row.context if form == "pointwise" else rows[start].context for row in chosen]
        expected = [hand_model.score(c, row.candidate) for c, row in zip(context, chosen, strict=True)]
        assert scores_of(answer, form) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_the_probe_sends_every_body_as_it_is_and_finds_every_answer_right(
    server: Server, bundle: Path, form: str
) -> None:
    top_k = None if form.startswith("oip") else 2
    bodies = make_bodies(golden_rows(bundle), candidates=5, form=form, top_k=top_k, separators={"tags": "|"})
    target = parse_target(server.url, PATHS[form])
    assert len(probe(target, bodies)) == len(bodies) == 9
    wrong = [type(body)(body.content, body.content_type, 6, body.headers) for body in bodies]
    with pytest.raises(TargetError, match="body 0: expected 6 scores, got 5"):
        probe(target, wrong)


@pytest.mark.parametrize("form", ["oip", "oip-binary"])
def test_tensors_hold_the_values_of_a_field_whose_separator_is_no_bar(form: str) -> None:
    """Encoded by the service's own pipeline, against the encoder on the raw rows."""
    fields = [
        MultiValuedField("tags", "candidate", 3, separator=","),
        MultiValuedField("of", "context", 2, separator=";"),
    ]
    vocabulary = Vocabulary(["a|b", "c", "d", "7"], 3)
    encoder = FeatureEncoder(fields, {"tags": vocabulary, "of": vocabulary})
    values = [["a|b", "c"], [], None, ["c", "", "a|b", "d", "c"], "a|b,,d", 7, ""]
    rows = [Row({"of": ["d", "a|b"]}, {"tags": value}) for value in values]
    (body,) = make_bodies(rows, candidates=len(rows), form=form, count=1, separators={"tags": ",", "of": ";"})
    length = int(dict(body.headers).get("inference-header-content-length", len(body.content)))
    request = decode(split(body.content, length if body.headers else None))
    tensors = TensorEncoder(encoder, max_candidates=100)
    context, candidates = tensors.encode(request, body.content, length if body.headers else None)
    assert context.tolist() == encoder.encode_rows("context", [rows[0].context]).tolist()
    assert candidates.tolist() == encoder.encode_rows("candidate", [row.candidate for row in rows]).tolist()


@pytest.mark.parametrize("form", ["oip", "oip-binary"])
def test_text_beside_arrays_is_refused_where_nothing_says_what_separates_it(form: str) -> None:
    rows = [Row({}, {"tags": ["x"]}), Row({}, {"tags": "x,y"})]
    with pytest.raises(BodyError, match=r"field tags: expected arrays alone, or --bundle.*got arrays .*'x,y'"):
        make_bodies(rows, candidates=2, form=form)
    assert len(make_bodies(rows[1:], candidates=2, form=form)) == 1  # the service splits it


@pytest.mark.parametrize(("candidates", "bodies"), [(1, 5000), (40, 5000), (20_000, 78)])
def test_small_requests_use_every_row_and_long_ones_as_many_as_64_mib_hold(candidates: int, bodies: int) -> None:
    rows = [Row({"user": n}, {"ad": f"ad-{n:026d}"}) for n in range(5000)]
    made = make_bodies(rows, candidates=candidates, form="rows")
    assert len(made) == pytest.approx(bodies, rel=0.1)
    assert len({body.content for body in made}) == len(made)
    assert sum(len(body.content) for body in made) < 1.1 * (64 << 20)


def test_so_many_candidates_that_no_memory_holds_them_are_refused_before_a_body_is_made() -> None:
    with pytest.raises(BodyError, match=r"candidates: expected a body of at most 64 MiB, got 10{12} candidates"):
        make_bodies(ROWS, candidates=10**12)


def test_distinct_rows_are_counted_by_content_and_only_where_they_were_sent() -> None:
    rows = [Row({}, {"ad": n % 60}) for n in range(100)]
    assert len(make_bodies(rows, candidates=1)) == 100
    sent = {
        (sent, reach): distinct_rows(rows, candidates=reach, bodies=100, sent=sent)
        for sent in (10, 500)
        for reach in (1, 25)
    }
    assert sent == {(10, 1): 10, (10, 25): 34, (500, 1): 60, (500, 25): 60}


def test_the_probe_of_many_bodies_ends_in_time_and_has_seen_some_of_all_of_them() -> None:
    seen: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as requests:
                while requests.readline():
                    length = 0
                    while (header := requests.readline()) != b"\r\n":
                        if header.startswith(b"content-length"):
                            length = int(header.split()[1])
                    seen.append(int(requests.read(length)))
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

        server = threading.Thread(target=serve)
        server.start()
        target = Target("127.0.0.1", listener.getsockname()[1])
        took = probe(target, [Body(b"%d" % n) for n in range(1000)], most_seconds=0.0)
        server.join(10)
    assert len(took) == len(seen) == 64
    assert seen[0] == 0
    assert max(seen) > 990
    assert max(b - a for a, b in pairwise(seen)) <= 16


def test_a_refused_body_is_shown_with_its_problem_document(server: Server) -> None:
    bodies = make_bodies([Row({}, {"nonsense": 1})], candidates=1)
    with pytest.raises(TargetError, match=r"expected status 200, got 422: .*nonsense"):
        probe(parse_target(server.url), bodies)


def test_golden_rows_are_those_of_the_bundle_and_fields_those_that_it_may_be_sent(bundle: Path) -> None:
    assert [row.candidate for row in golden_rows(bundle)] == ROW_CANDIDATES * 3
    assert bundle_model(bundle) == MODEL_ID
    fields = {field.name: (field.side, field.kind) for field in bundle_fields(bundle)}
    assert fields == {f.name: (f.side, f.kind) for f in FIELDS if f.name != "position"}
    assert set(DROPPED) <= set(fields)
    with pytest.raises(BodyError, match="expected a bundle with golden"):
        golden_rows(bundle.parent)


def test_a_running_service_says_what_its_fields_are(server: Server, bundle: Path) -> None:
    model, fields = served_model(parse_target(server.url))
    assert model == MODEL_ID
    assert {(f.name, f.side, f.kind) for f in fields} == {(f.name, f.side, f.kind) for f in bundle_fields(bundle)}


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.csv.gz", "rows.parquet"])
def test_a_table_in_any_format_gives_the_rows_that_a_client_would_send(bundle: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    header = ["click", "user", "hour", "ad", "price", "tags", "position"]
    cells = [["1", "u1", "2", "a1", "0.5", "x|y", "1"], ["0", "007", "", "a2", "3", "", "2"]]
    if name.endswith("parquet"):
        pl.DataFrame(cells, schema=header, orient="row").write_parquet(path)
    else:
        unpacked = gzip.open if name.endswith("gz") else open
        with unpacked(path, "wt", encoding="utf-8") as file:
            csv.writer(file, delimiter="\t" if "tsv" in name else ",").writerows([header, *cells])
    assert table_rows(path, bundle_fields(bundle)) == [
        Row({"user": "u1", "hour": 2}, {"ad": "a1", "price": 0.5, "tags": ["x", "y"]}),
        Row({"user": "007", "hour": None}, {"ad": "a2", "price": 3, "tags": None}),
    ]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.csv", "", "expected one row or more"),
        ("a.csv", "x,y\n1,2\n", "columns named like the model's fields .*, got x, y"),
        ("a.json", "{}", "another ending"),
        ("none.csv", None, "No such file"),
    ],
)
def test_a_table_that_is_none_is_refused(
    bundle: Path, tmp_path: Path, name: str, content: str | None, complaint: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(BodyError, match=complaint):
        table_rows(tmp_path / name, bundle_fields(bundle))


def test_a_table_that_is_damaged_is_refused_in_one_sentence(bundle: Path, tmp_path: Path) -> None:
    packed = gzip.compress(b"ad,user\n" + b"".join(b"a%d,u%d\n" % (n * 7919, n) for n in range(5000)))
    pl.DataFrame({"ad": [f"a{n}" for n in range(5000)]}).write_parquet(tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    damaged = {
        "cut.csv.gz": packed[: len(packed) // 2],
        "turned.csv.gz": packed[:30] + bytes(byte ^ 255 for byte in packed[30:60]) + packed[60:],
        "text.csv.gz": b"ad,user\n1,2\n",
        "cut.parquet": whole[: len(whole) // 2],
        "turned.parquet": whole[:40] + bytes(byte ^ 255 for byte in whole[40:200]) + whole[200:],
        "text.parquet": b"no table",
        "empty.parquet": b"",
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BodyError, match=rf"{name}: expected a (Parquet )?table, got \S") as refusal:
            table_rows(tmp_path / name, bundle_fields(bundle))
        assert "\n" not in str(refusal.value)


def test_ready_bodies_are_sent_to_the_byte_and_their_candidates_counted_where_they_can_be(tmp_path: Path) -> None:
    lines = ['{"candidates": [{}, {}]}', '{"candidates": {"ad": ["a", "b", "c"]}}', '{"rows": [1]}', "[1]"]
    path = tmp_path / "bodies.jsonl"
    path.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    bodies = body_file(path)
    assert [body.content.decode() for body in bodies] == lines
    assert [body.candidates for body in bodies] == [2, 3, None, None]
    for wrong in ("{", "[" * 100_000, "9" * 5000):
        path.write_text(f"{{}}\n{wrong}\n", encoding="utf-8")
        with pytest.raises(BodyError, match="line 2: expected a JSON document"):
            body_file(path)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b'{"scores":[0.5,0.5]}', None),
        (b'{"outputs":[{"name":"p","datatype":"FP32","shape":[2],"data":[0.1,0.2]}]}', None),
        (b'{"scores":[0.5]}', "expected 2 scores, got 1"),
        (b'{"scores":[0.5,null]}', "finite numbers"),
        (b'{"scores":"ab"}', "expected 2 scores"),
        (b"[]", "expected 2 scores"),
        (b"", "expected 2 scores"),
    ],
)
def test_an_answer_is_right_only_with_as_many_finite_scores_as_candidates(body: bytes, complaint: str | None) -> None:
    whole = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    answer = AnswerReader().feed(whole)
    assert answer is not None
    found = check_answer(answer, 2)
    assert found is None if complaint is None else complaint in (found or "")


@pytest.mark.parametrize("cut", range(1, 90, 7))
@pytest.mark.parametrize(
    "whole",
    [
        b"HTTP/1.1 201 Fine\r\nX: 1\r\nContent-Length:5\r\nConnection: Close\r\n\r\nhello",
        (
            b"HTTP/1.1 201 Fine\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
            b"2;x=1\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
        ),
    ],
)
def test_an_answer_is_the_same_however_its_bytes_are_cut(whole: bytes, cut: int) -> None:
    reader = AnswerReader()
    pieces = [whole[at : at + cut] for at in range(0, len(whole), cut)]
    answers = [reader.feed(piece) for piece in pieces]
    assert answers[:-1] == [None] * (len(pieces) - 1)
    last = answers[-1]
    assert last is not None
    assert (last.status, last.body, last.last) == (201, b"hello", True)
    assert reader.empty


def test_a_request_is_what_an_http_client_would_send() -> None:
    target = Target("h", 81, "/p?q", (("authorization", "x"),))
    head, _, body = target.request(b"{}", "application/json", (("a", "b"),)).partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    assert (line, body) == ("POST /p?q HTTP/1.1", b"{}")
    assert dict(header.split(": ") for header in headers) == {
        "host": "h:81",
        "content-type": "application/json",
        "content-length": "2",
        "a": "b",
        "authorization": "x",
    }
    assert json.loads(body) == {}
