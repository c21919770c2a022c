"""Words for left and right in the names of structures, and what else such names are made of."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping


def plain(text: str) -> str:
    """Without accents, so that a word is known with and without them."""
    decomposed = unicodedata.normalize("NFKD", text)
    bare = "".join(letter for letter in decomposed if unicodedata.category(letter) != "Mn")
    return unicodedata.normalize("NFC", bare).translate(str.maketrans("øØłŁı", "oOlLi"))


def _words(side: str, text: str) -> dict[str, str]:
    return {plain(word).casefold(): side for word in text.split()}


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# English, Latin, German and Dutch, French, Spanish and Catalan, Portuguese and Galician, Italian, Scandinavian,
# Finnish, Estonian, Polish, Czech and Slovak, Croatian, Slovene and Serbian, Romanian, Albanian, Lithuanian and
# Latvian, Basque, Russian, Ukrainian, Belarusian and Bulgarian, Greek, Indonesian and Malay, Vietnamese, Arabic,
# Hebrew and Persian, Thai, Chinese and Japanese, Korean.
SIDE_WORDS: Mapping[str, str] = {
    **_words(
        "L",
        """left lefts lt lft lh lhs leftside leftsided
        sinister sinistra sinistrum sinistri sinistrae sin
        links linker linke linkes linken linkem linkse li lks
        gauche gauches gche gch
        izquierdo izquierda izquierdos izquierdas izq izqdo izqda izdo izda esquerre esquerra
        esquerdo esquerda esquerdos esquerdas esq
        sinistro sinistre sx
        vänster vaenster vänstra venstre vinstri vasen vasemman vasak vasaku
        lewy lewa lewe lewej lewo levý levá levé ľavý ľavá ľavé lijevi lijeva lijevo levi leva levo stâng stânga
        majtë majtas kairė kairys kairysis kairioji kreisā kreisais ezker ezkerreko ezkerra
        левый левая левое лев лівий ліва ліве левы ляв лява ляво леви лева лево levyy levyj levyi levaya levoe
        αριστερός αριστερή αριστερό αριστερά
        kiri trái يسار يسرى اليسرى أيسر الأيسر שמאל שמאלי שמאלית چپ ซ้าย
        左 왼쪽 좌측""",
    ),
    **_words(
        "R",
        """right rights rt rgt rght rh rhs rightside rightsided
        dexter dextra dextrum dextri dextrae dex dext
        rechts rechter rechte rechtes rechten rechtem rechtse regs regter re rts
        droit droite droits droites dte drt
        derecho derecha derechos derechas dcho dcha dch drcha dret dreta
        direito direita direitos direitas dereito dereita dto dta
        destro destra destri destre dx
        höger hoeger högra højre høyre hojre hoyre hægri oikea oikean parem parema
        prawy prawa prawe prawej prawo pravý pravá pravé desni desna desno drept dreapta dreaptă
        djathtë djathtas dešinė dešinys dešinysis dešinioji eskuin eskuineko eskuina
        правый правая правое прав правий права праве правы десен дясна дясно десни десна десно pravyy pravyj pravyi
        pravaya pravoe
        δεξιός δεξιά δεξί δεξιό
        kanan phải يمين يمنى اليمنى أيمن الأيمن ימין ימני ימנית راست ขวา
        右 오른쪽 우측""",
    ),
}
# Sides if the counterpart is there, otherwise anything: der is Spanish for right, and a German article.
DOUBTFUL_WORDS = {
    **_words("L", "sn stg sol bal os as ki 좌"),
    **_words("R", "der dir des ds dr sag jobb od ad ka labā labais 우"),
}
# Adjectives whose endings vary: rein droit, jambe droite.
ADJECTIVES = {
    **_words("L", "izquierd esquerd sinistr"),
    **_words("R", "derech direit destr dextr droit"),
}
# These are found inside a word too: leftkidney, niererechts, 좌폐.
STEMS = {
    **_words("L", "left links linke gauche 왼쪽 좌측 좌 ซ้าย"),
    **_words("R", "right rechts rechte 오른쪽 우측 우 ขวา"),
    **ADJECTIVES,
}
# Without a counterpart too; destruction, dextrose, blinker and 우유 are not of a side.
LONE_STEMS = frozenset(_words("L", "left links gauche izquierd esquerd sinistr")) | frozenset(
    _words("R", "right rechts derech direit droit")
)
# Single letters, left and right: French; perhaps Italian, Spanish, Portuguese, Scandinavian (or superficial and deep),
# Finnish, Estonian, Hungarian, Russian, Greek.
LETTER_PAIRS = {
    ("g", "d"): True,
    **dict.fromkeys([("s", "d"), ("i", "d"), ("e", "d"), ("v", "h"), ("v", "o"), ("v", "p"), ("b", "j")], False),
    **dict.fromkeys([("л", "п"), ("α", "δ")], False),
}
# LK and RK are kidneys, LL and RL lungs or legs. LV and RV are chambers of a heart.
ABBREVIATED_PAIRS = frozenset("klhfe")
# Regions of the spine, of which L is one.
REGIONS = frozenset({"c", "t", "th", "s"})
OF_THE_MIDDLE = _set(
    """spine spinal vertebra vertebrae vertebral vert vertebre wirbel wirbelkoerper wirbelkorper wk body bodies corpus
    disc disk discs disks ivd lumbar column level label segment canal cord partial"""
)
# Left and right chambers are told apart by more than their side; those of the brain are called lateral.
OF_THE_HEART = tuple(
    _words(
        "",
        """heart cardiac cardium ventricl ventricul ventrik ventricol atrium atria atrio auricul oreillette
        herz vorhof kammer kammar hjert coeur cuore corazon coracao serce komora przedsionek
        сердц желудоч предсерд 心室 心房 심실 심방""",
    )
)
# LV, RVOT, LA and RAA: the side comes first.
OF_THE_HEART_SHORT = re.compile(r"[lr](?:v|v[a-z]{1,4}|aa)")
