"""What people and monitors are told of a bundle; the ledger keeps it, so no folder is needed."""

from dataclasses import asdict
from typing import Any

from worker.bundle import EVALUATION, PARTS, README, Bundle
from worker.seal import read_metadata


def card_of(bundle: Bundle) -> dict[str, Any]:
    """Plain values about a verified bundle.

    Returns:
        `validation`: counts in tenths of probability, under `edges`; None where not recorded.
        `inputs`: by number, a `bundle.Spread` of the cohort.
        `model_card`: Markdown.
        The rest as in `bundle.Description`.
    """
    metadata = read_metadata(bundle.folder)
    validation = bundle.validation
    return {
        "description": str(metadata.get("description", "")),
        "statement": bundle.statement,
        "intended_input": bundle.intended_input,
        "threshold_low": bundle.threshold_low,
        "threshold_high": bundle.threshold_high,
        "ood_limit": bundle.ood_limit,
        "signed_by": bundle.signed_by,
        "figures": metadata.get("eval_metrics", {}),
        "validation": validation
        and {"edges": [part / PARTS for part in range(PARTS + 1)], **asdict(validation)},
        "inputs": {name: asdict(spread) for name, spread in bundle.inputs.items()},
        "model_card": _text(bundle, README) or "",
    }


def evaluation_of(bundle: Bundle) -> str | None:
    """The report of its evaluation: HTML that is not to be trusted with scripts."""
    return _text(bundle, EVALUATION)


def _text(bundle: Bundle, name: str) -> str | None:
    path = bundle.folder / name
    return path.read_text(encoding="utf-8") if path.exists() else None
