"""`GET /model`: what is served, where it came from, and what it takes."""

from fastapi import APIRouter

from service.runtime import Runtime
from service.schemas import FieldDescription, FileDescription, ModelDescription

__all__ = ["router"]


def router(runtime: Runtime) -> APIRouter:
    """The model's description."""
    routes = APIRouter(tags=["operation"])

    @routes.get("/model", summary="The served model")
    async def model() -> ModelDescription:
        """Id, digests, fields with kind and side, dropped fields, training metrics."""
        served = runtime.ready_model()
        manifest, encoder = served.manifest, served.scorer.encoder
        uses = (("used", encoder.fields), ("ignored", encoder.ignored), ("training only", encoder.refused))
        return ModelDescription(
            id=manifest.model_id,
            created=manifest.created,
            precision=served.scorer.precision,
            precisions=list(served.scorer.bundle.variants),
            features_digest=encoder.digest,
            files={
                name: FileDescription(sha256=file.sha256, bytes=file.bytes) for name, file in manifest.files.items()
            },
            fields=[
                FieldDescription(
                    name=field.name,
                    side=field.side,
                    kind=field.kind,
                    use=use,
                    max_values=field.width if field.kind == "multi_valued" else None,
                )
                for use, fields in uses
                for field in fields
            ],
            dropped_fields=list(manifest.facts.dropped_fields),
            training=manifest.training,
            model=manifest.model,
        )

    return routes
