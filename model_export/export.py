"""A run directory to a bundle: the steps in order, nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from model_export.errors import OutputExistsError, ParityError
from model_export.facts import check_cost, model_facts, training_facts
from model_export.fusion import CostModel, FusedTower, FusionFacts, ParameterBudget, fuse, fuse_towers
from model_export.golden import golden_rows
from model_export.graph import EXTERNAL_ABOVE_BYTES, Graph, save
from model_export.latency import session
from model_export.load import LoadedRun, load_run, refuse_existing
from model_export.parity import ParityReport, Reference, Rows, Tolerance, check_layout, check_parity
from model_export.passes import apply_passes
from model_export.serving import serving_encoder, serving_ids
from model_export.to_onnx import to_onnx
from model_export.variants import Attempt, Judge, VariantGates, variant_facts, write_variants
from service.bundle import MODEL_FILE, BundleError, Inputs, StagedBundle, read_bundle
from service.features.files import new_directory
from service.scorer import Scorer, ScorerError

if TYPE_CHECKING:
    from pathlib import Path

    from service.bundle import Precision


@dataclass(frozen=True)
class ExportOptions:
    """What may differ from one export to the next.

    Attributes:
        cost: Prices by which folding is chosen.
        budget: How many parameters folding may make.
        tolerance: What the parity gate lets pass.
        external_above: Bytes of tables beyond which they are written beside the graph.
        precisions: What tables to try beside float32, which every bundle has.
        gates: What those must pass.
        seconds: How long to time them beside float32.
    """

    cost: CostModel = field(default_factory=CostModel)
    budget: ParameterBudget = field(default_factory=ParameterBudget)
    tolerance: Tolerance = field(default_factory=Tolerance)
    external_above: int = EXTERNAL_ABOVE_BYTES
    precisions: tuple[Precision, ...] = ("float32",)
    gates: VariantGates = field(default_factory=VariantGates)
    seconds: float = 1.0


@dataclass(frozen=True)
class Exported:
    """What an export made.

    Attributes:
        path: The bundle.
        loaded: The run it was made from.
        tower: The merged model.
        graph: The graph that was written.
        parity: Largest differences that the gate saw.
        variants: Every precision that was tried, float32 first; none where only that was asked for.
    """

    path: Path
    loaded: LoadedRun
    tower: FusedTower
    graph: Graph
    parity: ParityReport
    variants: tuple[Attempt, ...] = ()


def export_run(run: Path, out: Path, options: ExportOptions | None = None) -> Exported:
    """Export a run.

    Args:
        run: The run directory.
        out: The bundle to be; must not exist, and does not unless every step passes.
        options: Defaults suit any run.

    Raises:
        ExportError: See the tree in `errors`.
    """
    options = options or ExportOptions()
    refuse_existing(out)
    loaded = load_run(run)
    rate = loaded.negative_sampling_rate
    tower = fuse(
        fuse_towers(loaded.form), FusionFacts(rate, options.cost, options.budget, calibration=loaded.calibration)
    )
    encoder = serving_encoder(loaded.encoder, tower)
    check_layout(tower, encoder)
    graph = apply_passes(to_onnx(tower))
    check_cost(graph, loaded.form, loaded.calibration)
    reference = Reference(loaded.form, rate, loaded.calibration)
    golden, golden_ids = golden_rows(loaded.run.raw_sample(), loaded.encoder, encoder, reference)
    validation = loaded.run.validation()
    validation_ids = (validation.context_ids, validation.candidate_ids)
    samples = [
        Rows(name, ids, serving_ids(loaded.encoder, encoder, ids))
        for name, ids in (("golden rows", golden_ids), ("validation sample", validation_ids))
    ]
    try:
        with new_directory(out) as directory:
            staged = StagedBundle(directory)
            save(graph, directory / MODEL_FILE, options.external_above)
            runner = session(str(directory / MODEL_FILE))
            parity = check_parity(reference, tower, runner, samples, options.tolerance)
            judge = Judge(reference, samples, validation, rate, options.gates, options.tolerance.pctr)
            variants = write_variants(
                directory,
                graph,
                options.precisions,
                judge,
                external_above=options.external_above,
                seconds=options.seconds,
            )
            staged.write_encoder(encoder)
            staged.write_golden(golden)
            staged.write_reference(loaded.run.reference)
            staged.describe(
                loaded.run.id,
                Inputs(context_ids=encoder.width("context"), candidate_ids=encoder.width("candidate")),
                training=training_facts(loaded),
                model=model_facts(
                    loaded, tower=tower, graph=graph, encoder=encoder, parity=parity, tolerance=options.tolerance
                ),
                variants=variant_facts(variants, judge),
            )
            staged.finish()
            _self_test(directory)
    except FileExistsError as error:
        raise OutputExistsError(str(error)) from error
    return Exported(out, loaded, tower, graph, parity, variants)


def _self_test(directory: Path) -> None:
    """Read the bundle back and score its golden rows as the service does at its start.

    Raises:
        ParityError: The service would not serve it.
    """
    try:
        bundle = read_bundle(directory, verify=False)  # its digests were compared a moment ago, when it was finished
        for precision in bundle.variants:
            Scorer(bundle, precision=precision).self_test()
    except (BundleError, ScorerError) as error:
        raise ParityError(f"the written bundle does not pass the service's self-test: {error}") from error
