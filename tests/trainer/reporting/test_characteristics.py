"""The table of participants counts everybody, the unknown included."""

from dataclasses import replace

from trainer.bern import BernItems
from trainer.reporting.characteristics import Share, bern_group, characteristics, levels, strata


def rows(cohort):
    return {(each.topic, each.level): each for each in characteristics(cohort)}


def test_ages_are_given_as_median_quartiles_and_range_of_those_known(cohort):
    age = rows(cohort)["Age, years", "median (IQR), range"].everyone

    assert (age.known, age.of) == (79, 80)
    assert (age.lowest, age.highest) == (25, 84)
    assert age.lower_quartile < age.median < age.upper_quartile


def test_every_exam_is_in_one_level_of_each_topic(cohort):
    found = rows(cohort)

    for topic in ("Site", "Scanner", "Field strength", "Sex", "Age", "Bern score", "tilt"):
        shares = [each.everyone for (name, _), each in found.items() if name == topic]
        assert sum(share.count for share in shares) == 80, topic


def test_leaks_are_counted_among_positives_only(cohort):
    slow = rows(cohort)["Leak", "slow"]

    assert slow.everyone == slow.positive
    assert slow.negative == Share(0, 0)


def test_a_bern_score_with_a_gap_has_a_band_only_if_the_gap_leaves_one(cohort):
    exam = cohort.exams[0]

    assert bern_group(replace(exam, bern=BernItems(), given_bern=2)) == "low (0 to 2)"
    assert bern_group(cohort.exams[40]) == "unknown"
    ranged = next(e for e in cohort.exams if e.bern_range and len(set(e.bern_range)) > 1)
    assert bern_group(ranged) in {"items missing: band open", "high (5 to 9)", "low (0 to 2)"}


def test_bands_run_from_low_to_high_and_the_unknown_comes_last(cohort):
    ages = next(stratum for stratum in strata(cohort) if stratum.title == "Age")

    names = [name for name, _ in levels(ages, cohort)]

    assert names == ["under 40", "40 to 59", "60 and over", "unknown"]


def test_a_column_of_many_values_shows_the_most_frequent_only(cohort):
    exams = tuple(replace(e, columns={"code": str(n // 2)}) for n, e in enumerate(cohort.exams))
    column = strata(replace(cohort, exams=exams))[-1]

    assert len(list(levels(column, replace(cohort, exams=exams)))) == 12
