"""Which bundle answers: the active one of an analysis. Shadows run beside it and are compared; what
they find is never sent. People decide, each step is written down, and one step can be taken back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, select, update

from listener.entries import BundleRow, Edition, Role
from listener.errors import MonroError
from listener.ledger import BUNDLE_COLUMNS, Ledger
from listener.tables import bundles, rollouts
from listener.workforce import Workforce

PROMOTED = "promoted"
ROLLED_BACK = "rolled back"


class CannotRollOut(MonroError):
    """A bundle cannot be given the role that was asked for."""

    def __init__(self, analysis: str, found: str, remedy: str) -> None:
        super().__init__(analysis, found, remedy)
        self.analysis, self.found, self.remedy = analysis, found, remedy

    def __str__(self) -> str:
        return f"{self.analysis}: {self.found}; {self.remedy}"


class NobodyHolds(CannotRollOut):
    """No living worker holds a bundle that is to be promoted."""

    def __init__(self, analysis: str, edition: Edition) -> None:
        weights_sha256, version = edition
        super().__init__(
            analysis,
            f"no living worker holds version {version} with weights {weights_sha256[:12]}, so "
            "studies would wait until one does",
            "start a worker that has it; let a retired one run as a shadow first",
        )


@dataclass(frozen=True)
class Step:
    """One decision about a bundle.

    Attributes:
        number: later decisions have larger ones.
        before: the edition that was active until then; None where that did not change.
    """

    number: int
    at: float
    actor: str
    what: str
    analysis: str
    edition: Edition
    before: Edition | None


def promote(ledger: Ledger, analysis: str, edition: Edition, actor: str) -> BundleRow:
    """Make a bundle the active one; the one that was is retired, and can be rolled back to.

    Jobs that wait for the old one are planned anew. What was answered stays as it is.

    Raises:
        CannotRollOut: no worker registered it, or it is active already.
    """
    with ledger.writing() as connection:
        chosen = _require(connection, analysis, edition)
        if chosen.role == "active":
            raise CannotRollOut(analysis, f"{_named(chosen)} is active already", "nothing to do")
        _activate(ledger, connection, chosen, PROMOTED, actor)
    return _bundle(chosen, "active")


def require_a_worker(ledger: Ledger, analysis: str, edition: Edition) -> None:
    """See to it that a bundle that is to be promoted could answer at once.

    Raises:
        NobodyHolds: no living worker holds it, so studies would wait.
    """
    if (analysis, *edition) not in Workforce(ledger).held():
        raise NobodyHolds(analysis, edition)


def roll_back(ledger: Ledger, analysis: str, actor: str, number: int | None = None) -> BundleRow:
    """Take the last promotion back: what was active before is active again.

    Args:
        ledger: of the listener.
        analysis: of the bundle that was promoted.
        actor: who takes it back.
        number: of the promotion that is meant; None: whichever is the last.

    Raises:
        CannotRollOut: nothing was promoted, that step was taken back already, or another bundle
            was promoted since the step that is meant.
    """
    last = (
        select(rollouts)
        .where(rollouts.c.analysis == analysis, rollouts.c.before_weights.is_not(None))
        .order_by(rollouts.c.number.desc())
        .limit(1)
    )
    with ledger.writing() as connection:
        step = connection.execute(last).first()
        if step is None:
            raise CannotRollOut(analysis, "nothing was promoted yet", "promote a bundle first")
        if step.what == ROLLED_BACK:
            remedy = "promote the bundle that is wanted by its version"
            raise CannotRollOut(analysis, "the last promotion was taken back already", remedy)
        if number not in (None, step.number):
            found = f"version {step.version} was promoted meanwhile"
            raise CannotRollOut(analysis, found, "look at the bundles again, and decide anew")
        chosen = _require(connection, analysis, (step.before_weights, step.before_version))
        _activate(ledger, connection, chosen, ROLLED_BACK, actor)
    return _bundle(chosen, "active")


def can_roll_back(ledger: Ledger) -> dict[str, Step]:
    """Of each analysis its last promotion, where that was not taken back yet."""
    last = (
        select(func.max(rollouts.c.number))
        .where(rollouts.c.before_weights.is_not(None))
        .group_by(rollouts.c.analysis)
    )
    query = select(rollouts).where(rollouts.c.number.in_(last), rollouts.c.what == PROMOTED)
    with ledger.reading() as connection:
        return {row.analysis: _step(row) for row in connection.execute(query)}


def set_aside(ledger: Ledger, analysis: str, edition: Edition, role: Role, actor: str) -> BundleRow:
    """Let a bundle run as a shadow, or not at all (`retired`).

    Raises:
        CannotRollOut: no worker registered it, it is the active one, or it has that role.
    """
    with ledger.writing() as connection:
        chosen = _require(connection, analysis, edition)
        if chosen.role == "active":
            found = f"{_named(chosen)} is active, and results would stop"
            raise CannotRollOut(analysis, found, "promote another bundle, then ask again")
        if chosen.role == role:
            raise CannotRollOut(analysis, f"{_named(chosen)} is {role} already", "nothing to do")
        _give(connection, chosen, role)
        what = "made a shadow" if role == "shadow" else "retired"
        _write_down(ledger, connection, chosen, what, actor, None)
    return _bundle(chosen, role)


def registered(ledger: Ledger) -> list[BundleRow]:
    """Every bundle that workers registered, by analysis; the active ones first."""
    query = select(*bundles.c[*BUNDLE_COLUMNS, "card"]).order_by(
        bundles.c.analysis, bundles.c.role, bundles.c.registered_at.desc()
    )
    with ledger.reading() as connection:
        return [
            replace(_bundle(row, row.role), card=row.card or {})
            for row in connection.execute(query)
        ]


def find(ledger: Ledger, analysis: str, wanted: str) -> BundleRow:
    """The one bundle of an analysis with this version, or whose weights' digest begins so.

    Raises:
        CannotRollOut: there is none, or there are several.
    """
    known = [each for each in registered(ledger) if each.analysis == analysis]
    found = [each for each in known if wanted == each.version]
    found = found or [each for each in known if each.weights_sha256.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    listed = _listed(found or known)
    if found:
        remedy = f"name the one that is meant by the beginning of its weights' digest: {listed}"
        raise CannotRollOut(analysis, f"{len(found)} bundles are {wanted!r}", remedy)
    remedy = f"workers registered {listed}" if known else "start a worker that has a bundle for it"
    raise CannotRollOut(analysis, f"no bundle is {wanted!r}", remedy)


def history(ledger: Ledger, limit: int = 100) -> list[Step]:
    """The last decisions, newest first."""
    query = select(rollouts).order_by(rollouts.c.number.desc()).limit(limit)
    with ledger.reading() as connection:
        return [_step(row) for row in connection.execute(query)]


def _activate(
    ledger: Ledger, connection: Connection, chosen: Row[Any], what: str, actor: str
) -> None:
    analysis = bundles.c.analysis == chosen.analysis
    until_now = connection.execute(
        select(*bundles.c[*BUNDLE_COLUMNS]).where(analysis, bundles.c.role == "active")
    ).first()
    if until_now is not None:
        _give(connection, until_now, "retired")
    _give(connection, chosen, "active")
    _write_down(ledger, connection, chosen, what, actor, until_now)


def _give(connection: Connection, bundle: Row[Any], role: Role) -> None:
    connection.execute(
        update(bundles)
        .where(
            bundles.c.analysis == bundle.analysis,
            bundles.c.weights_sha256 == bundle.weights_sha256,
            bundles.c.version == bundle.version,
        )
        .values(role=role)
    )


def _write_down(
    ledger: Ledger,
    connection: Connection,
    bundle: Row[Any],
    what: str,
    actor: str,
    before: Row[Any] | None,
) -> None:
    connection.execute(
        insert(rollouts).values(
            at=ledger.now,
            actor=actor,
            what=what,
            analysis=bundle.analysis,
            weights_sha256=bundle.weights_sha256,
            version=bundle.version,
            before_weights=before and before.weights_sha256,
            before_version=before and before.version,
        )
    )


def _require(connection: Connection, analysis: str, edition: Edition) -> Row[Any]:
    weights_sha256, version = edition
    row = connection.execute(
        select(*bundles.c[*BUNDLE_COLUMNS]).where(
            and_(
                bundles.c.analysis == analysis,
                bundles.c.weights_sha256 == weights_sha256,
                bundles.c.version == version,
            )
        )
    ).first()
    if row is None:
        found = f"no worker registered version {version} with weights {weights_sha256[:12]}"
        raise CannotRollOut(analysis, found, "put it where a worker looks for its bundles")
    return row


def _bundle(row: Row[Any], role: Role) -> BundleRow:
    return BundleRow(row.analysis, row.name, row.version, row.weights_sha256, role=role)


def _step(row: Row[Any]) -> Step:
    before = None if row.before_weights is None else (row.before_weights, row.before_version)
    edition = (row.weights_sha256, row.version)
    return Step(row.number, row.at, row.actor, row.what, row.analysis, edition, before)


def _named(bundle: Row[Any]) -> str:
    return f"{bundle.name} {bundle.version}"


def _listed(found: Sequence[BundleRow]) -> str:
    return ", ".join(f"{each.name} {each.version} ({each.weights_sha256[:12]})" for each in found)
