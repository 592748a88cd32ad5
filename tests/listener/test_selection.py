"""The contrast-enhanced T1 of the head is found among everything else a scanner sends."""

from collections import defaultdict
from dataclasses import replace
from itertools import permutations

import pytest
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRColorImageStorage,
    EnhancedMRImageStorage,
    EnhancedSRStorage,
    MRImageStorage,
    MRSpectroscopyStorage,
    SecondaryCaptureImageStorage,
)

from listener.errors import BadAttribute
from listener.selection import (
    RULES,
    Region,
    contrast_evidence,
    region,
    rules_table,
    select,
)
from listener.series import SeriesFacts, read_series_facts
from listener.weighting import Weighting, weighting

# The paper's series (Faghani 2024): sagittal fat-saturated 3D TSE, TR 600, TE 7.2.
PAPER = SeriesFacts(
    study_uid="1.2",
    series_uid="1.2.1",
    sop_class=MRImageStorage,
    instances=176,
    modality="MR",
    series_number=5,
    description="SAG 3D T1 FS POST",
    body_part="BRAIN",
    image_type=("ORIGINAL", "PRIMARY", "M", "ND"),
    scanning_sequence=("SE",),
    sequence_variant=("SK", "SP"),
    scan_options=("FS",),
    mr_acquisition_type="3D",
    echo_time=7.2,
    repetition_time=600.0,
    flip_angle=120.0,
    contrast_agent="Gadavist",
    rows=256,
    columns=256,
    samples_per_pixel=1,
    photometric="MONOCHROME2",
    pixel_spacing=(1.0, 1.0),
    slice_thickness=1.0,
    orientation=(0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
)
SILENT = replace(PAPER, description="", protocol="", sequence_name="")
GRADIENT = replace(SILENT, scanning_sequence=("GR",), sequence_variant=("SK", "SP"))
UNENHANCED = replace(PAPER, description="SAG 3D T1 FS", contrast_agent="")


def verdict(facts):
    """The verdict on a series alone in its study."""
    return select("fistula", [facts]).verdicts[0]


def test_the_series_of_the_paper_is_chosen():
    assert select("fistula", [PAPER]).chosen == PAPER.series_uid


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("mr", {"modality": "CT", "sop_class": CTImageStorage}),
        ("mr", {"modality": "SR", "sop_class": EnhancedSRStorage}),
        ("mr", {"sop_class": MRSpectroscopyStorage}),
        ("mr", {"sop_class": SecondaryCaptureImageStorage}),
        ("mr", {"sop_class": EnhancedMRColorImageStorage}),
        ("grey", {"samples_per_pixel": 3, "photometric": "RGB"}),
        ("grey", {"photometric": "PALETTE COLOR"}),
        ("grey", {"photometric": "MONOCHROME1"}),
        ("original", {"image_type": ("DERIVED", "SECONDARY", "MPR")}),
        ("original", {"image_type": ("ORIGINAL", "PRIMARY", "MPR")}),
        ("original", {"image_type": ("DERIVED", "SECONDARY", "OCCLUSION")}),
        ("original", {"image_type": ("ORIGINAL", "PRIMARY", "PROJECTION IMAGE", "MIP")}),
        ("magnitude", {"image_type": ("ORIGINAL", "PRIMARY", "P", "ND")}),
        ("magnitude", {"complex_component": "PHASE"}),
        ("magnitude", {"complex_component": "REAL"}),
        ("no-mosaic", {"image_type": ("ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC")}),
        ("no-localizer", {"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}),
        ("no-localizer", {"description": "AAHead_Scout"}),
        ("no-localizer", {"description": "3-plane loc"}),
        ("no-localizer", {"description": "Repérage"}),
        ("no-diffusion", {"b_value": 1000.0}),
        ("no-diffusion", {"description": "T1 DCE perfusion +C"}),
        ("no-diffusion", {"image_type": ("ORIGINAL", "PRIMARY", "PERFUSION", "NONE")}),
        ("no-diffusion", {"acquisition_contrast": "PERFUSION"}),
        ("one-time", {"temporal_positions": 40}),
        ("head", {"body_part": "LSPINE", "description": "SAG T1 FS POST"}),
        ("head", {"description": "SAG T1 FS POST neck"}),
        ("t1", {"description": "SAG T2 SPACE", "echo_time": 120.0, "repetition_time": 3000.0}),
    ],
)
def test_what_is_not_wanted_says_by_which_rule(rule, changes):
    facts = replace(PAPER, **changes)
    sentence = next(row.sentence for row in RULES["fistula"] if row.name == rule)
    assert not verdict(facts).wanted
    assert sentence in verdict(facts).decided_by
    assert select("fistula", [facts]).chosen is None


def test_scanners_that_write_a_b_value_of_zero_on_plain_images_are_forgiven():
    assert verdict(replace(PAPER, b_value=0.0)).wanted


T1_BY_PHYSICS = {
    "fat-saturated TSE of the paper": SILENT,
    "T1 SPACE": replace(SILENT, echo_time=11.0, repetition_time=700.0),
    "T1 CUBE": replace(SILENT, echo_time=16.0, repetition_time=602.0),
    "T1 spin echo at 3 T": replace(SILENT, echo_time=9.0, repetition_time=900.0),
    "T1 FLAIR": replace(
        SILENT,
        scanning_sequence=("SE", "IR"),
        echo_time=9.0,
        repetition_time=2500.0,
        inversion_time=860.0,
    ),
    "Siemens MPRAGE": replace(
        GRADIENT,
        scanning_sequence=("GR", "IR"),
        sequence_variant=("SK", "SP", "MP"),
        echo_time=2.98,
        repetition_time=2300.0,
        inversion_time=900.0,
        flip_angle=9.0,
    ),
    "GE BRAVO": replace(
        GRADIENT,
        sequence_variant=("SS", "SP", "SK"),
        echo_time=3.2,
        repetition_time=8.2,
        inversion_time=450.0,
        flip_angle=12.0,
    ),
    "Philips 3D TFE": replace(
        GRADIENT, sequence_variant=("MP",), echo_time=2.93, repetition_time=6.5, flip_angle=9.0
    ),
    "spoiled 3D gradient echo": replace(
        GRADIENT, echo_time=4.4, repetition_time=11.0, flip_angle=15.0
    ),
    "spoiled 2D gradient echo": replace(
        GRADIENT, echo_time=4.4, repetition_time=250.0, flip_angle=70.0
    ),
    "T1 by its coded contrast": replace(
        SILENT,
        acquisition_contrast="T1",
        scanning_sequence=(),
        echo_time=None,
        repetition_time=None,
    ),
}


@pytest.mark.parametrize("name", T1_BY_PHYSICS)
def test_t1_is_recognised_where_descriptions_are_silent(name):
    assert weighting(T1_BY_PHYSICS[name]) is Weighting.T1
    assert verdict(T1_BY_PHYSICS[name]).wanted


OTHER_BY_PHYSICS = {
    "PD TSE": replace(SILENT, echo_time=20.0, repetition_time=3000.0),
    "3D FLAIR": replace(
        SILENT,
        scanning_sequence=("SE", "IR"),
        echo_time=390.0,
        repetition_time=5000.0,
        inversion_time=1800.0,
    ),
    "STIR": replace(
        SILENT,
        scanning_sequence=("SE", "IR"),
        echo_time=30.0,
        repetition_time=4000.0,
        inversion_time=160.0,
    ),
    "SWI": replace(GRADIENT, echo_time=20.0, repetition_time=27.0, flip_angle=15.0),
    "T2* gradient echo": replace(GRADIENT, echo_time=20.0, repetition_time=600.0, flip_angle=20.0),
    "time of flight": replace(
        GRADIENT,
        sequence_variant=("SP", "TOF"),
        echo_time=3.6,
        repetition_time=22.0,
        flip_angle=18.0,
    ),
    "angiography": replace(
        GRADIENT, echo_time=3.6, repetition_time=22.0, flip_angle=18.0, angio=True
    ),
    "FIESTA": replace(
        GRADIENT,
        sequence_variant=("SS", "SK"),
        echo_time=2.5,
        repetition_time=5.4,
        flip_angle=50.0,
    ),
    "second inversion of MP2RAGE": replace(
        GRADIENT,
        scanning_sequence=("GR", "IR"),
        echo_time=2.9,
        repetition_time=5000.0,
        inversion_time=2500.0,
        flip_angle=5.0,
    ),
    "echo planar": replace(SILENT, scanning_sequence=("EP",), echo_time=30.0),
}


@pytest.mark.parametrize("name", OTHER_BY_PHYSICS)
def test_other_weightings_are_recognised_where_descriptions_are_silent(name):
    assert weighting(OTHER_BY_PHYSICS[name]) is Weighting.OTHER
    assert not verdict(OTHER_BY_PHYSICS[name]).wanted


@pytest.mark.parametrize("name", OTHER_BY_PHYSICS)
def test_a_description_of_t1_does_not_overrule_clear_physics(name):
    facts = replace(OTHER_BY_PHYSICS[name], description="T1 MPRAGE +C")
    assert not verdict(facts).wanted


T2_BY_PHYSICS = {
    "TSE": replace(SILENT, echo_time=95.0, repetition_time=5000.0),
    "TSE at low field": replace(SILENT, echo_time=120.0, repetition_time=2200.0),
    "T2 by its coded contrast": replace(
        SILENT, acquisition_contrast="T2", scanning_sequence=(), echo_time=None
    ),
}


@pytest.mark.parametrize("name", T2_BY_PHYSICS)
def test_t2_is_recognised_where_descriptions_are_silent(name):
    assert weighting(T2_BY_PHYSICS[name]) is Weighting.T2
    assert not verdict(T2_BY_PHYSICS[name]).wanted


def test_weighting_that_nothing_tells_is_not_guessed():
    nothing = replace(SILENT, scanning_sequence=(), echo_time=None, repetition_time=None)
    assert weighting(nothing) is Weighting.UNKNOWN
    assert not verdict(nothing).wanted


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("Sag T1w", Weighting.T1),
        ("SagT1 FS", Weighting.T1),
        ("t1_mprage_sag_p2_iso", Weighting.T1),
        ("AX T1 FLAIR", Weighting.T1),
        ("Ax BRAVO", Weighting.T1),
        ("T10-T12", Weighting.UNKNOWN),
        ("T1 map", Weighting.OTHER),
        ("T1map", Weighting.OTHER),
        ("T2 FLAIR", Weighting.OTHER),
        ("ax t2 tirm dark-fluid", Weighting.OTHER),
        ("AX T2 TSE", Weighting.T2),
        ("t2_tse_tra_512", Weighting.T2),
        ("FLAIR 3D", Weighting.OTHER),
        ("SWI_Images", Weighting.OTHER),
        ("3D TOF MRA", Weighting.OTHER),
        ("", Weighting.UNKNOWN),
    ],
)
def test_words_tell_where_physics_is_silent(description, expected):
    wordy = replace(SILENT, scanning_sequence=("RM",), echo_time=None, description=description)
    assert weighting(wordy) is expected


@pytest.mark.parametrize(
    "description",
    [
        "SAG T1 POST",
        "T1 +C",
        "T1 + Gd",
        "t1_mprage_sag_KM",
        "T1 nach KM",
        "T1 mit Kontrastmittel",
        "T1 C+",
        "T1CE",
        "T1 w/ contrast",
        "T1 après injection",
        "T1 gado",
        "T1 con contraste",
        "T1 con mdc",
        "T1 \N{CYRILLIC SMALL LETTER ES} контрастом",
        "T1 增强",
        "造影後 T1",
        "T1 SAG FS POST GADAVIST",
        "T1 without fat sat post Gd",
        "MPRAGE_postcontrast",
    ],
)
def test_a_description_that_names_contrast_is_evidence(description):
    assert contrast_evidence(replace(UNENHANCED, description=description)) is not None


@pytest.mark.parametrize(
    "description",
    [
        "SAG T1",
        "T1 PRE",
        "T1 pre contrast",
        "T1 PRE GAD",
        "T1 w/o contrast",
        "T1 WO",
        "T1 without i.v. contrast",
        "T1 W WO CONTRAST",
        "T1 with and without contrast",
        "T1 non-contrast",
        "T1 no contrast",
        "T1 ohne KM",
        "T1 vor KM",
        "T1 nativ",
        "T1 sans injection",
        "T1 sin contraste",
        "T1 senza mdc",
        "T1 без контраста",
        "T1 平扫",
        "造影前 T1",
        "T1 unenhanced",
        "T1 post-op",
        "T1 POST FOSSA",
        "T1 C-",
        "T1 posterior",
        "T1 FOV 24 cm",
        "T1 presat",
    ],
)
def test_a_description_that_denies_contrast_or_only_sounds_like_it_is_no_evidence(description):
    assert contrast_evidence(replace(UNENHANCED, description=description)) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"contrast_agent": "Dotarem 15 ml"},
        {"contrast_agent": "YES"},
        {"contrast_volume": 7.5},
        {"contrast_route": "IV"},
        {"contrast_administered": "YES"},
        {"protocol": "BRAIN T1 POST GAD"},
    ],
)
def test_each_header_attribute_of_contrast_is_evidence(changes):
    assert contrast_evidence(replace(UNENHANCED, **changes)) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"contrast_agent": "NONE"},
        {"contrast_agent": "no"},
        {"contrast_agent": "N/A"},
        {"contrast_agent": " - "},
        {"contrast_agent": "0 ml"},
        {"contrast_agent": "No contrast"},
        {"contrast_agent": "without"},
        {"contrast_volume": 0.0},
        {"contrast_route": "none"},
        {"protocol": "BRAIN W WO CONTRAST"},
        {"contrast_agent": "Gadavist", "contrast_administered": "NO"},
        {"contrast_agent": "Gadavist", "description": "SAG T1 PRE"},
    ],
)
def test_empty_words_and_explicit_denials_are_no_evidence(changes):
    assert contrast_evidence(replace(UNENHANCED, **changes)) is None


@pytest.mark.parametrize(
    "description", ["T1 W WO CONTRAST", "T1 with and without Gd", "T1 PRE POST", "T1 W/WO"]
)
def test_a_description_of_both_leaves_the_word_to_the_header(description):
    said = replace(UNENHANCED, description=description)
    assert contrast_evidence(said) is None
    assert contrast_evidence(replace(said, contrast_agent="Gadavist")) is not None


def test_an_unenhanced_t1_is_chosen_so_that_it_can_be_refused_with_its_reason():
    assert select("fistula", [UNENHANCED]).chosen == UNENHANCED.series_uid


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"body_part": "HEAD"}, Region.HEAD),
        ({"body_part": "Schädel"}, Region.HEAD),
        ({"body_part": "HEAD AND NECK"}, Region.HEAD),
        ({"body_part": "KNEE"}, Region.OTHER),
        ({"body_part": "C-SPINE"}, Region.OTHER),
        ({"body_part": ""}, Region.SILENT),
        ({"body_part": "UNKNOWN"}, Region.SILENT),
        ({"body_part": "", "anatomy": ("T-A0100", "")}, Region.HEAD),
        ({"body_part": "", "anatomy": ("69536005", "KOPF")}, Region.HEAD),
        ({"body_part": "", "study_description": "MRT Kniegelenk, Knie"}, Region.OTHER),
        ({"body_part": "", "study_description": "IRM cérébrale, tête"}, Region.HEAD),
        ({"body_part": "SPINE", "description": "T1 brain"}, Region.HEAD),
        ({"body_part": "HEAD", "description": "T1 neck"}, Region.OTHER),
    ],
)
def test_the_first_text_that_names_a_body_part_decides(changes, expected):
    assert region(replace(SILENT, **changes)) is expected


def test_contrast_outweighs_everything_else_together():
    poorer = replace(
        PAPER,
        series_uid="1.2.2",
        instances=24,
        description="AX T1 POST",
        body_part="",
        mr_acquisition_type="2D",
        slice_thickness=4.0,
        scan_options=(),
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    )
    assert select("fistula", [UNENHANCED, poorer]).chosen == "1.2.2"


@pytest.mark.parametrize(
    "poorer",
    [
        {"orientation": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)},
        {"mr_acquisition_type": "2D"},
        {"slice_thickness": 2.0, "instances": 88},
        {"instances": 60},
        {"scan_options": (), "description": "T1 POST"},
    ],
)
def test_sagittal_3d_thin_whole_and_fat_saturated_are_preferred(poorer):
    other = replace(PAPER, series_uid="1.2.2", series_number=9, **poorer)
    selection = select("fistula", [PAPER, other])
    assert selection.chosen == PAPER.series_uid
    loser = next(found for found in selection.verdicts if found.series_uid == "1.2.2")
    assert loser.wanted
    assert loser.decided_by.startswith("wanted, but the chosen series ")


def test_the_repeated_series_is_preferred_to_the_first_attempt():
    again = replace(PAPER, series_uid="1.2.0", series_number=PAPER.series_number + 1)
    assert select("fistula", [PAPER, again]).chosen == "1.2.0"


def test_the_order_in_which_series_arrive_makes_no_difference():
    study = [
        PAPER,
        UNENHANCED,
        replace(PAPER, series_uid="1.2.2", series_number=None),
        replace(
            PAPER, series_uid="1.2.3", sop_class=EnhancedMRImageStorage, instances=1, frames=176
        ),
    ]
    study[1] = replace(UNENHANCED, series_uid="1.2.4")
    assert len({select("fistula", order) for order in permutations(study)}) == 1


def test_a_study_of_the_knee_or_of_ct_is_not_mr_of_the_head():
    knee = replace(PAPER, body_part="KNEE", description="SAG T1")
    ct = replace(PAPER, modality="CT", sop_class=CTImageStorage)
    assert not select("fistula", [knee, ct]).holds_head_mr
    assert not select("fistula", []).holds_head_mr


def test_a_localizer_that_names_no_body_part_does_not_make_a_knee_a_head():
    knee = replace(PAPER, body_part="KNEE", description="SAG PD")
    silent = replace(PAPER, series_uid="1.2.2", body_part="", description="LOC", protocol="")
    silent = replace(silent, study_description="", image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))
    head = replace(silent, series_uid="1.2.3", body_part="HEAD")
    assert not select("fistula", [knee, silent]).holds_head_mr
    assert select("fistula", [silent]).holds_head_mr
    assert select("fistula", [knee, silent, head]).holds_head_mr


def test_a_study_with_only_t2_of_a_silent_body_part_may_be_mr_of_the_head():
    t2 = replace(T2_BY_PHYSICS["TSE"], body_part="")
    selection = select("fistula", [t2])
    assert (selection.chosen, selection.holds_head_mr) == (None, True)


def test_the_rules_print_as_a_table():
    rows = rules_table("fistula")
    assert {row[1] for row in rows} == {"must", "prefer"}
    assert ("contrast", "prefer", "100", "the series was acquired with a contrast agent") in rows
    assert len({row[0] for row in rows}) == len(rows)


# --- real headers ---


def study_of(*folders):
    """The facts of every readable series below some folders."""
    found = defaultdict(list)
    for folder in folders:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            try:
                facts = read_series_facts(path, 1)
            except BadAttribute:
                continue
            found[facts.series_uid].append(facts)
    return [replace(of_one[0], instances=len(of_one)) for of_one in found.values()]


def test_of_the_real_philips_study_the_mprage_is_chosen_and_the_perfusion_is_not(shared_data):
    study = study_of(shared_data / "philips_mprage_sag", shared_data / "philips_enh_pcasl")
    selection = select("fistula", study)
    mprage = next(facts for facts in study if facts.slices == 170)
    assert selection.chosen == mprage.series_uid
    assert [found.wanted for found in selection.verdicts].count(True) == 1


def test_the_real_perfusion_alone_is_not_wanted_though_the_study_is_of_the_head(shared_data):
    selection = select("fistula", study_of(shared_data / "philips_enh_pcasl"))
    assert (selection.chosen, selection.holds_head_mr) == (None, True)


def test_of_two_real_enhanced_series_of_one_name_the_later_is_chosen(shared_data):
    study = study_of(shared_data / "siemens_xa30_enh_t1_sag")
    selection = select("fistula", study)
    chosen = next(facts for facts in study if facts.series_uid == selection.chosen)
    assert [found.wanted for found in selection.verdicts] == [True, True]
    assert chosen.series_number == 6


@pytest.mark.parametrize("folder", ["siemens_scout_xa30i", "transfer_syntaxes_mosaic"])
def test_real_scouts_and_mosaics_are_never_wanted(shared_data, folder):
    files = [path for path in (shared_data / "odd" / folder).rglob("*") if path.is_file()]
    assert len(files) in {9, 11}
    assert not any(verdict(read_series_facts(path, 1)).wanted for path in files)


# The paper's series (Cüce 2025): axial T2, thick slices.
AXIAL_T2 = replace(
    PAPER,
    series_uid="1.2.9",
    instances=24,
    description="AX T2 TSE",
    scan_options=(),
    mr_acquisition_type="2D",
    echo_time=100.0,
    repetition_time=4500.0,
    contrast_agent="",
    pixel_spacing=(0.45, 0.45),
    slice_thickness=5.0,
    spacing_between=6.0,
    orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
)


def test_each_analysis_finds_its_own_series_in_one_study():
    study = [PAPER, AXIAL_T2]
    assert select("fistula", study).chosen == PAPER.series_uid
    assert select("infection", study).chosen == AXIAL_T2.series_uid


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("mr", {"modality": "CT", "sop_class": CTImageStorage}),
        ("head", {"description": "AX T2 CERVICAL SPINE", "body_part": "CSPINE"}),
        ("axial", {"orientation": PAPER.orientation}),
        ("axial", {"orientation": None}),
        ("t2", {"description": "AX T2 FLAIR"}),
        ("t2", {"description": "AX T2*", "scanning_sequence": ("GR",), "echo_time": 20.0}),
        ("t2", {"description": "AX T1", "echo_time": 10.0, "repetition_time": 500.0}),
        (
            "t2",
            {
                "description": "AX DARK",
                "scanning_sequence": ("SE", "IR"),
                "inversion_time": 2500.0,
                "repetition_time": 9000.0,
            },
        ),
    ],
)
def test_the_axial_t2_is_told_from_what_looks_like_it(rule, changes):
    sentence = next(each.sentence for each in RULES["infection"] if each.name == rule)
    found = select("infection", [replace(AXIAL_T2, **changes)]).verdicts[0]
    assert not found.wanted
    assert sentence in found.decided_by


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("coverage", {"instances": 8}),
        ("spin-echo", {"echo_time": 300.0}),
        ("fine", {"pixel_spacing": (1.4, 1.4)}),
        ("named-head", {"body_part": "", "description": "AX T2 TSE"}),
        ("no-fat-saturation", {"scan_options": ("FS",)}),
        ("normalised", {"image_type": ("ORIGINAL", "PRIMARY", "M")}),
    ],
)
def test_the_better_of_two_axial_t2_is_chosen(rule, changes):
    better = replace(AXIAL_T2, image_type=("ORIGINAL", "PRIMARY", "M", "NORM"))
    worse = replace(better, **changes, series_uid="1.2.8", series_number=99)
    sentence = next(each.sentence for each in RULES["infection"] if each.name == rule)
    found = select("infection", [worse, better])
    assert found.chosen == better.series_uid
    assert sentence in found.verdicts[0].decided_by
