"""A plan as flat rows: one per configuration and card."""

from typing import Any

from estimators.footprint import CATEGORIES, RESIDENT
from estimators.verdict import Fit
from galore_mem.answers.plan import Plan, PlanResult


def plan_rows(result: PlanResult) -> list[dict[str, Any]]:
    """One row per configuration and card; one per configuration where no card was named."""
    return [_row(result, plan, fit) for plan in result.plans for fit in plan.fits or (None,)]


def _row(result: PlanResult, plan: Plan, fit: Fit | None) -> dict[str, Any]:
    workload, method, footprint = plan.workload, plan.workload.method, fit.footprint if fit else plan.footprint
    at_peak = footprint.peak.by_category
    return {
        "model": workload.model.name,
        "parameters": result.parameters,
        "method": method.name,
        "update": method.update,
        "rank": method.rank,
        "precision": workload.precision,
        "micro_batch_size": workload.batch.micro_batch_size,
        "sequence_length": workload.batch.sequence_length,
        "gradient_accumulation_steps": workload.batch.gradient_accumulation_steps,
        "checkpointing": workload.checkpointing,
        "loss": workload.loss,
        "gpu": fit.gpu.name if fit else None,
        "verdict": fit.verdict if fit else None,
        "usable_bytes": fit.usable_bytes if fit else None,
        "headroom_bytes": fit.headroom_bytes if fit else None,
        "peak_live_bytes": footprint.peak_live_bytes,
        "peak_allocated_bytes": footprint.peak_allocated_bytes,
        "peak_reserved_bytes": footprint.peak_reserved_bytes,
        "process_bytes": footprint.process_bytes,
        "upper_bytes": footprint.upper_bytes,
        "peak_moment": footprint.peak.label,
        "runner_up_moment": footprint.runner_up.label,
        "max_sequence_length": fit.max_sequence_length if fit else None,
        "max_micro_batch_size": fit.max_micro_batch_size if fit else None,
        **{f"at_peak_{category}_bytes": at_peak.get(category, 0) for category in CATEGORIES},
        **{f"resident_{category}_bytes": footprint.resident_bytes.get(category, 0) for category in RESIDENT},
    }
