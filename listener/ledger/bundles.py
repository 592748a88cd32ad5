"""The bundles that workers brought, and the role of each."""

import zlib
from typing import Any, cast

from sqlalchemy import Row, and_, exists, insert, select, update

from listener.entries import BundleRow, Edition, Role
from listener.errors import VersionTaken
from listener.ledger.database import Database
from listener.ledger.succession import is_edition
from listener.tables import bundles, jobs, move, rollouts, studies

BUNDLE_COLUMNS = ("analysis", "name", "version", "weights_sha256", "role")
"""What planning must know of a bundle: cards and reports are large, and not read each second."""


class Bundles(Database):
    """What jobs are run with."""

    def active_bundle(self, analysis: str) -> BundleRow | None:
        """The bundle whose results are sent; None where no worker brought one."""
        wanted = self.wanted_bundles(analysis)
        return wanted[0] if wanted and wanted[0].role == "active" else None

    def wanted_bundles(self, analysis: str) -> list[BundleRow]:
        """The bundles that new jobs of an analysis are for: the active one, then its shadows."""
        query = (
            select(*bundles.c[*BUNDLE_COLUMNS])
            .where(bundles.c.analysis == analysis, bundles.c.role.in_(("active", "shadow")))
            .order_by(bundles.c.role, bundles.c.registered_at)
        )
        with self.reading() as connection:
            return [_bundle(row) for row in connection.execute(query)]

    def wanted_editions(self) -> set[Edition]:
        """The editions of all active and shadow bundles, of whatever analysis."""
        query = select(bundles.c.weights_sha256, bundles.c.version).where(
            bundles.c.role.in_(("active", "shadow"))
        )
        with self.reading() as connection:
            return {(row.weights_sha256, row.version) for row in connection.execute(query)}

    def register_bundle(self, bundle: BundleRow) -> Role:
        """Note that a worker can run a bundle; returns the bundle's role.

        The first of an analysis is active. Any other is a shadow until people say otherwise
        (rollout.py), and one that is known keeps the role that it has.

        Raises:
            VersionTaken: another bundle is known by its name and version.
        """
        of_analysis = bundles.c.analysis == bundle.analysis
        this = and_(of_analysis, is_edition(bundles, bundle.edition))
        namesake = and_(
            of_analysis, bundles.c.name == bundle.name, bundles.c.version == bundle.version, ~this
        )
        report = bundle.evaluation
        told = {
            "card": dict(bundle.card),
            "evaluation": None if report is None else zlib.compress(report.encode()),
        }
        with self.writing() as connection:
            named = f"{bundle.name} {bundle.version}"
            taken = connection.scalar(select(bundles.c.weights_sha256).where(namesake))
            if taken is not None:
                raise VersionTaken(named, f"weights {bundle.weights_sha256}", f"weights {taken}")
            before = connection.execute(select(bundles.c.role, bundles.c.seal).where(this)).first()
            if before is not None:
                if before.seal != bundle.seal:
                    raise VersionTaken(named, f"content {bundle.seal}", f"content {before.seal}")
                connection.execute(update(bundles).where(this).values(**told))
                return cast(Role, before.role)
            is_first = not connection.scalar(
                select(exists().where(of_analysis, bundles.c.role == "active"))
            )
            role: Role = "active" if is_first else "shadow"
            connection.execute(
                insert(bundles).values(
                    analysis=bundle.analysis,
                    weights_sha256=bundle.weights_sha256,
                    version=bundle.version,
                    name=bundle.name,
                    role=role,
                    registered_at=self._clock(),
                    seal=bundle.seal,
                    **told,
                )
            )
            connection.execute(
                insert(rollouts).values(
                    at=self._clock(),
                    actor="a worker",
                    what=f"registered as {role}",
                    analysis=bundle.analysis,
                    weights_sha256=bundle.weights_sha256,
                    version=bundle.version,
                )
            )
        return role

    def supersede_unwanted(self) -> int:
        """Drop queued jobs whose bundle has another role by now; returns how many there were.

        Studies that waited for the active bundle's answer are planned anew.
        """
        another_role = exists().where(
            bundles.c.analysis == jobs.c.analysis,
            bundles.c.weights_sha256 == jobs.c.weights_sha256,
            bundles.c.version == jobs.c.bundle_version,
            bundles.c.role != jobs.c.role,
        )
        outdated = and_(jobs.c.state == "QUEUED", another_role)
        of_active = and_(outdated, jobs.c.role == "active")
        with self.writing() as connection:
            waiting = connection.scalars(select(jobs.c.study_uid).where(of_active)).all()
            moved = move(connection, jobs, outdated, "SUPERSEDED", reason="its bundle was replaced")
            connection.execute(
                update(studies).where(studies.c.study_uid.in_(waiting)).values(planned_revision=0)
            )
        return moved


def _bundle(row: Row[Any]) -> BundleRow:
    return BundleRow(row.analysis, row.name, row.version, row.weights_sha256, role=row.role)
