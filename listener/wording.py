"""What free text in headers says: descriptions are written by people, in many languages.

All tables hold folded words (see `fold`); a radiographer may proof-read and extend them.
"""

import enum
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final


def fold(text: str) -> str:
    """Lower case without accents: `Schädel` and `SCHADEL` are the same word."""
    spread = unicodedata.normalize("NFKD", text.casefold())
    return "".join(mark for mark in spread if not unicodedata.combining(mark))


def _table(words: str) -> frozenset[str]:
    return frozenset(fold(words).split())


def words_of(*texts: str) -> tuple[str, ...]:
    """The words of some free texts, folded, in order."""
    return tuple(re.findall(r"[^\W_]+", fold(" ".join(texts))))


HEAD_WORDS: Final = _table(
    "head brain skull cranium cranial cerebral cerebrum neurocranium intracranial headneck neuro"
    " pituitary sella hypophysis orbit orbits iac kopf schädel schaedel hirn gehirn neurokranium"
    " tête crâne cerveau encéphale cabeza cerebro cráneo encéfalo testa cranio cervello encefalo"
    " cabeça crânio hoofd hersenen schedel hode hjerne huvud hjärna pää aivot głowa mózg beyin kafa"
    " kranial голова головы мозг мозга 头 頭 头部 頭部 脑 脳 颅脑 脑部 두부 뇌"
)
OTHER_BODY_WORDS: Final = _table(
    "neck spine cspine tspine lspine cervical thoracic lumbar sacrum knee shoulder hip ankle foot"
    " elbow wrist hand finger thigh leg arm forearm calf femur tibia humerus extremity chest thorax"
    " breast heart cardiac abdomen liver kidney pancreas mrcp pelvis prostate uterus rectum bladder"
    " wholebody phantom hals wirbelsäule ws hws bws lws knie schulter hüfte fuss becken bauch brust"
    " herz leber rachis colonne genou épaule hanche cheville poignet bassin coeur foie columna"
    " rodilla hombro cadera tobillo muñeca corazón higado colonna ginocchio spalla anca cuore"
    " fegato joelho ombro coluna nek wervelkolom schouder heup kręgosłup kolano diz omurga"
    " позвоночник колено 脊柱 颈椎 腰椎 膝 肩 척추 무릎"
)
LOCALIZER_WORDS: Final = _table(
    "localizer localiser loc locator scout scouts survey surview topogram pilot aascout aahead"
    " smartbrain 3plane 3pl threeplane lokalizer lokalisator localisateur repérage"
    " localizador localizzatore centratura"
)
DIFFUSION_PERFUSION_WORDS: Final = _table(
    "dwi dti dki dsi adc eadc tracew trace colfa diffusion diffusie diffusione difusión"
    " diffusionsbild perfusion perf perfusie perfusione perfusión asl pcasl pasl 3dpcasl casl dsc"
    " dce twist keyhole rcbf rcbv cbf cbv mtt ttp tmax bold fmri resting ep2d epi ivim noddi hardi"
)
FLUID_WORDS: Final = _table("flair tirm darkfluid fluid")
OTHER_WEIGHTING_WORDS: Final = _table(
    "stir swi swan venobold swip susceptibility hemo haemo pd pdw dp ciss fiesta trufi bssfp"
    " tof mra mrv angio angiography venography venogram pca qflow cine flow phase fieldmap"
    " b0map b1map spectroscopy svs csi mrs t1rho t1map t1mapping mtr inv1 inv2 uni myelo myelogram"
    " elastography mre qsm map maps mapping"
)
FAT_SATURATION_WORDS: Final = _table("fs fatsat fatsuppressed spir spair dixon water")
T1_NAMES: Final = _table("mprage memprage bravo spgr fspgr irspgr vibe thrive 3dtfe")

# T1 or T2, not T10-T12 (vertebrae), alone or after the words that scanners glue to it.
_T1: Final = re.compile(r"(?:2d|3d|sag|cor|ax|tra|ir|fl)*t1(?!\d)")
_T2: Final = re.compile(r"(?:2d|3d|sag|cor|ax|tra|ir|fl)*t2(?!\d)")

_MEASURED_T1: Final = _table("t1map t1mapping t1rho")

CONTRAST_WORDS: Final = _table(
    "post postcontrast postcon postgad postgado postgd postkm postinj postgadolinium contrast contr"
    " kontrast kontrastmittel contraste contrasto contrastmiddel gad gado gd gadolinium gadolinio"
    " ce km mdc mdk civ inj injection injektion inyección enhanced enh t1ce t1c t1gd t1km t1post"
    " t1wce t1wgd postcontraste poscontraste pós kontrastli kontrastem kontrastmiddel"
    " контраст контрастом контраста ку dotarem dotagraf clariscan gadovist gadavist gadobutrol"
    " magnevist prohance multihance omniscan vueway elucirem gadoterate gadopiclenol feraheme"
    " ferumoxytol gadograf cyclolux"
)
# These say that there was no contrast, whatever follows.
UNENHANCED_WORDS: Final = _table(
    "pre precontrast pregad pregd prekm plain nativ native natif nativo nativa unenhanced"
    " nonenhanced noncontrast nce basale kontrastsiz precontraste"
)
# These say so where a contrast word follows.
NEGATIONS: Final = _table(
    "no non not without wo sans avant ohne vor sin antes senza prima sem zonder voor uten før utan"
    " före uden bez przed ilman ennen öncesi before без до"
)
# Scripts without spaces between words: looked for inside of words; the longer phrase first.
UNENHANCED_PARTS: Final = tuple(fold(part) for part in ("造影前", "単純", "平扫", "平掃", "조영전"))
CONTRAST_PARTS: Final = tuple(fold(part) for part in ("造影", "增强", "增強", "조영"))

# A text about both says nothing of this series: "W WO", "with and without contrast".
BOTH: Final = re.compile(r"\bw(?:ith)?\s*(?:and|&|\+|/|,)?\s*(?:w/o|wo|without)\b")
# Signs that are lost when a text is cut into words, and the word that stands for each.
SIGNS: Final = (
    (re.compile(r"\bpost[\s.-]*(?:op|fossa|surg|treat|tx|rt|therap|chemo)\w*"), " posterior "),
    (re.compile(r"\bw\s?/\s?o\b"), " without "),
    (re.compile(r"\b(?:wo|without|sans|ohne|sin|senza|sem)\s*$"), " plain "),
    (re.compile(r"(?:\+\s*|\bc/)(?:c|ce|gd|gad|gado|km|k|contr\w*|kontr\w*)\b"), " gd "),
    (re.compile(r"\b(?:c|iv|km|gd)\+"), " gd "),
    (re.compile(r"\b(?:c|iv|km|gd)-(?!\w)"), " plain "),
)
# May stand between a negation and what it denies: "without i.v. contrast".
FILLERS: Final = _table("iv i v any the de d di du des")
# What people write into an attribute to say that it is empty.
EMPTY_VALUES: Final = _table(
    "none no n na n/a nil null unknown without false nein non sin ohne kein keine keines aucun nie"
)
NOTHING_MEASURED: Final = re.compile(r"0+(?:[.,]0*)?\s*(?:ml|cc|mmol)?")

# In the label of a segment these do not tell a region from another.
REGION_FILLERS: Final = _table(
    "l r lt rt lh rh left right both bilateral sided brain cerebral of the and whole total region"
    " area parenchyma tissue nucleus nuclei mask roi seg segment segmentation corrected edited"
    " final"
)


class Said(enum.Enum):
    """What a text says of contrast."""

    ENHANCED = "enhanced"
    UNENHANCED = "unenhanced"
    NOTHING = "nothing"


def contrast_said(text: str) -> Said:
    """What a description says of contrast; one that says both says nothing.

    >>> contrast_said("t1_mprage_sag +C"), contrast_said("T1 w/o contrast")
    (<Said.ENHANCED: 'enhanced'>, <Said.UNENHANCED: 'unenhanced'>)
    """
    folded = fold(text).replace("_", " ")
    if BOTH.search(folded):
        return Said.NOTHING
    for sign, word in SIGNS:
        folded = sign.sub(word, folded)
    words = words_of(folded)
    named = {at for at, word in enumerate(words) if word in CONTRAST_WORDS}
    denied = named & _denied(words)
    plain = any(part in folded for part in UNENHANCED_PARTS)
    enhanced = named > denied or (not plain and any(part in folded for part in CONTRAST_PARTS))
    unenhanced = plain or bool(denied) or not UNENHANCED_WORDS.isdisjoint(words)
    if enhanced == unenhanced:
        return Said.NOTHING
    return Said.ENHANCED if enhanced else Said.UNENHANCED


def _denied(words: Sequence[str]) -> set[int]:
    """Where the words stand that a negation or `pre` denies; `pre post` denies nothing."""
    denied = set()
    for at, word in enumerate(words):
        if word in NEGATIONS or word in UNENHANCED_WORDS:
            after = at + 1
            while after < len(words) and words[after] in FILLERS:
                after += 1
            if after < len(words) and not words[after].startswith("pos"):
                denied.add(after)
    return denied


def names_something(value: str) -> bool:
    """Whether a header value names an agent or a route, rather than saying `NONE` or `0 ml`."""
    folded = fold(value).strip(" .-_/")
    named = folded and folded not in EMPTY_VALUES and not NOTHING_MEASURED.fullmatch(folded)
    return bool(named) and contrast_said(value) is not Said.UNENHANCED


def says_t1(words: Iterable[str]) -> bool:
    """Whether some word names T1 weighting; a T1 map is no weighting."""
    return any(word in T1_NAMES or (_T1.match(word) and word not in _MEASURED_T1) for word in words)


def says_t2(words: Iterable[str]) -> bool:
    """Whether some word names T2 or T2* weighting."""
    return any(_T2.match(word) for word in words)
