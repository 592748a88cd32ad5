"""The ledger: every instance, study, job, result and delivery, and what may become of each.

reception.py   what came in
planning.py    when a study is complete, and what is asked of it; bundles.py: what that is run with
work.py        jobs that are lent to workers, and what these answer
delivery.py    results on their way to destinations
orders.py      what an operator may order
overview.py    what people and programs may look at
succession.py  which job answers for a study, and which one it follows upon
inputs.py      what becomes of instances that are, or might have been, a job's input
rows.py        rows as values; processes.py: names of processes
database.py    what all of it stands on

States move only along TRANSITIONS (tables.py). Times are seconds since the epoch, UTC. The tables
hold UIDs and hashes, never a patient's name, ID or birth date.
"""

from listener.ledger.bundles import BUNDLE_COLUMNS, Bundles
from listener.ledger.delivery import Delivery
from listener.ledger.orders import Orders
from listener.ledger.overview import Overview
from listener.ledger.planning import Planning
from listener.ledger.processes import process_name, this_process
from listener.ledger.reception import OWN_RESULT, ROWS_AT_ONCE, Reception
from listener.ledger.succession import OUTDATED
from listener.ledger.work import HOPELESS_ATTEMPTS, Lease, Work

__all__ = [
    "BUNDLE_COLUMNS",
    "HOPELESS_ATTEMPTS",
    "OUTDATED",
    "OWN_RESULT",
    "ROWS_AT_ONCE",
    "Lease",
    "Ledger",
    "process_name",
    "this_process",
]


class Ledger(Reception, Planning, Bundles, Work, Delivery, Orders, Overview):
    """The tables behind everything that may not be forgotten.

    Args:
        url: SQLAlchemy URL, SQLite or PostgreSQL.
        clock: seconds since the epoch.
        steady: seconds by a clock that is never set; see `Jumps`.

    Raises:
        WrongLedger: the database was written by another version of monro.
    """
