"""Words for left and right in the names of structures, and what else such names are made of."""

from __future__ import annotations

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


# English, Latin, German and Dutch, French, Spanish and Catalan, Portuguese, Italian, Scandinavian, Finnish, Polish,
# Czech and Slovak, Croatian and Slovene, Romanian, Russian and Ukrainian, Greek, Chinese and Japanese, Korean.
SIDE_WORDS: Mapping[str, str] = {
    **_words(
        "L",
        """left lefts lt lft lh lhs leftside leftsided
        sinister sinistra sinistrum sinistri sinistrae sin
        links linker linke linkes linken linkse li lks
        gauche gauches gche
        izquierdo izquierda izquierdos izquierdas izq izqdo izqda izdo izda esquerre esquerra
        esquerdo esquerda esquerdos esquerdas esq
        sinistro sinistre sx
        vänster vaenster vänstra venstre vasen
        lewy lewa lewe lewej lewo levý levá levé lavý lavá lavé lijevi lijeva lijevo levi leva levo stâng stânga
        левый левая левое лев лівий ліва ліве levyy levaya levoe
        αριστερός αριστερή αριστερό αριστερά
        左 왼쪽""",
    ),
    **_words(
        "R",
        """right rights rt rgt rght rh rhs rightside rightsided
        dexter dextra dextrum dextri dextrae dex dext
        rechts rechter rechte rechtes rechten rechtse re rts
        droit droite droits droites dte drt
        derecho derecha derechos derechas dcho dcha dch dret dreta
        direito direita direitos direitas dto dta
        destro destra destri destre dx
        höger hoeger högra højre høyre hojre hoyre oikea
        prawy prawa prawe prawej prawo pravý pravá pravé desni desna desno drept dreaptă
        правый правая правое прав правий права праве pravyy pravaya pravoe
        δεξιός δεξιά δεξί δεξιό
        右 오른쪽""",
    ),
}
# Sides if the counterpart is there, otherwise anything: der is Spanish for right, and a German article.
DOUBTFUL_WORDS = {**_words("L", "sn stg sol bal os"), **_words("R", "der dir des ds dr sag jobb od")}
# Adjectives whose endings vary: rein droit, jambe droite.
ADJECTIVES = {
    **_words("L", "izquierd esquerd sinistr"),
    **_words("R", "derech direit destr dextr droit"),
}
# These are found inside a word too: leftkidney, niererechts.
STEMS = {**_words("L", "left links gauche"), **_words("R", "right rechts"), **ADJECTIVES}
# Without a counterpart too; destruction and dextrose are not of a side.
LONE_STEMS = frozenset(STEMS) - {"destr", "dextr"}
# Single letters, left and right: French; perhaps Italian, Spanish, Portuguese, Scandinavian (or superficial and deep).
LETTER_PAIRS = {("g", "d"): True, ("s", "d"): False, ("i", "d"): False, ("e", "d"): False, ("v", "h"): False}
# LK and RK are kidneys, LL and RL lungs or legs. LV and RV are chambers of a heart.
ABBREVIATED_PAIRS = frozenset("klhfe")
# Regions of the spine, of which L is one.
REGIONS = frozenset({"c", "t", "th", "s"})
OF_THE_MIDDLE = _set(
    """spine spinal vertebra vertebrae vertebral vert vertebre wirbel wirbelkoerper wirbelkorper wk body bodies corpus
    disc disk discs disks ivd lumbar column level label segment canal cord partial"""
)
# Left and right chambers are told apart by more than their side; those of the brain are called lateral.
OF_THE_HEART = _set(
    "heart cardiac ventricle ventricles atrium atria atrial auricle herz ventrikel vorhof coeur cuore corazon"
)
