"""Left and right by name: what is a pair, what is none, and what nobody can tell."""

from __future__ import annotations

import pytest

from lossevo.data.sides import sides_of

PAIRS = """
kidney_left kidney_right; Left Kidney|Right Kidney; kidneyLeft kidneyRight; leftKidney rightKidney
LeftKidney RightKidney; KIDNEY_LEFT KIDNEY_RIGHT; kidney-left kidney-right; kidney.left kidney.right
Kidney (left)|Kidney (right); kidney, left|kidney, right; kidney/left kidney/right; left.kidney right.kidney
kidney_L kidney_R; L_kidney R_kidney; kidney_l kidney_r; l_kidney r_kidney; L-kidney R-kidney; L kidney|R kidney
KidneyL KidneyR; LKidney RKidney; lKidney rKidney; kidney.L kidney.R; Kidney [L]|Kidney [R]; KIDNEYleft KIDNEYright
leftkidney rightkidney; kidneyleft kidneyright; LEFTKIDNEY RIGHTKIDNEY; lkid rkid; lad rad; LKID RKID; kidneyl kidneyr
LK RK; LAG RAG; LUL RUL; LLL RLL; lh rh; lh.cortex rh.cortex; ctx-lh-bankssts ctx-rh-bankssts; L R; left right; l r
kidney_lt kidney_rt; Kidney Lt|Kidney Rt; Left-Lateral-Ventricle Right-Lateral-Ventricle; wm_lh wm_rh
A_Carotid_L A_Carotid_R; OpticNrv_L OpticNrv_R; L-PCA R-PCA; LN_Neck_II_L LN_Neck_II_R; PsoasL PsoasR
rib_left_1 rib_right_1; rib_L_1 rib_R_1; RibL1 RibR1; femur_l1 femur_r1; L1_left L1_right; L4_L L4_R; 4L 4R
pedicle L5 left|pedicle L5 right; facet_L4_L5_l facet_L4_L5_r; left L4 body|right L4 body; iliopsoas_sin iliopsoas_dx
Niere links|Niere rechts; linke Niere|rechte Niere; linkesBein rechtesBein; niere_li niere_re; NiereLinks NiereRechts
nierelinks niererechts; rein gauche|rein droit; jambe_gauche jambe_droite; rein_G rein_D; poumonGauche poumonDroit
riñón izquierdo|riñón derecho; rinon_izquierdo rinon_derecho; pulmon_izq pulmon_der; pierna izda|pierna dcha
pulmonizquierdo pulmonderecho; rim esquerdo|rim direito; rim_esq rim_dir; rene sinistro|rene destro
gamba_sinistra gamba_destra; rene_sx rene_dx; ren_sin ren_dex; ren sinister|ren dexter; pulmo_sinistra pulmo_dextra
nier_linker nier_rechter; njure vänster|njure höger; nyre_venstre nyre_højre; munuainen_vasen munuainen_oikea
nerka lewa|nerka prawa; ledvina_leva ledvina_prava; levá ledvina|pravá ledvina; rinichi_stang rinichi_drept
левая почка|правая почка; 左肾 右肾; 왼쪽 신장|오른쪽 신장; left kidney|kidney_r; kidney_left Kidney-R
linkernier rechternier; linkeniere rechteniere; LL1 LR1; tooth_LL6 tooth_LR6; ear_AS ear_AD; 좌폐 우폐; 신장_좌 신장_우
좌측신장 우측신장; 왼쪽신장 오른쪽신장; neer_vasak neer_parem; vasaku_kopsu parema_kopsu; veshka_majtë veshka_djathtë
kairė_inkstas dešinė_inkstas; kreisā_niere labā_niere; giltzurrun_ezker giltzurrun_eskuin; riñón_esq riñón_dereito
лява_бъбрек дясна_бъбрек; леви бубрег|десни бубрег; ginjal_kiri ginjal_kanan; thận trái|thận phải; ไตซ้าย ไตขวา
الكلية_اليسرى الكلية_اليمنى; כליה_שמאל כליה_ימין; vinstri_nýra hægri_nýra; linker_nier regter_nier
psoas left (partial)|psoas right (partial); eye_OS eye_OD; mask L|mask R; erector spinae left|erector spinae right
"""

NO_SIDES = """
L1 L2 L3 L4 L5; L1 L2 L3 L4 L5 L6 S1 sacrum; T1 T12 Th12 TH11 C1 C7 S1 L3; vertebrae_L1 vertebrae_L5; L_1 L_2 L_5
L 1|L 2; L-4 L-5; vertebra_L_1 vertebra_L_2; disc L4-L5|disc L5-S1; IVD_L4_L5 IVD_L5_S1; L1 body|L2 body; L1_body
L T C S; L_spine T_spine C_spine; L-Spine; region_C region_T region_L; L5 (partial)|L5; psoas_L3; endplate_L4 L4
blinker; gerechte; 우유 심장; ES ED; ventricle myocardium; LVM LVC
liver spleen; cleft; bright dark; cleft palate; upright; lung rib; lateral medial; lateral rateral_x; linear; ruler lens
kidneys; left_and_right_lung; lungs left+right; class_a class_b class_c class_d class_e; grade 1|grade 2
label 1|label 2; foreground; vertebra; R1 R2 R3; LA; LV; lad liver; sinus; dexamethasone_depot; dirt; oder
grade_g grade_d grade_x; light dark; rim; right_left_shunt; Group D; type S|type M; region g; destruction; liv
"""

UNCLEAR = """
kidney_left; kidney_right liver; L; R; L_; _R; left; right; L_hip; hip_R; KidneyL; leftkidney; kidneyleft; lh; rh_cortex
rein_gauche; niere links|leber; Niere rechts; rene sx|fegato; meniscus_L meniscus_M; rib_L_1 rib_L_2; 10R; L7_L; L4_L
lung_upper_lobe_left lung_upper_lobe_right lung_middle_lobe_right; LUL LLL RUL RML RLL; RibL1 RibR1 RibL2; 左肾 肝
kidney_left|Kidney L|kidney_right; LV RV MYO; heart_ventricle_left heart_ventricle_right; left atrium|right atrium
leftatrium rightatrium; 左心室 右心室; 좌심실 우심실; linke Herzkammer|rechte Herzkammer; LVC RVC; LVOT RVOT; LAA RAA
ventricule gauche|ventricule droit; aurícula izquierda|aurícula derecha; átrio esquerdo|átrio direito; VG VD; VI VD
lewa komora|prawa komora; левый желудочек|правый желудочек; myocardium_left myocardium_right; почка_л почка_п
lung_LUL lung_LLL lung_RUL lung_RML lung_RLL; vese_b vese_j; neer_v neer_p; νεφρός_α νεφρός_δ
left atrium; ren_S ren_D; rim_E rim_D; nyre_V nyre_H; riñón_I riñón_D; L1 R1 L2; psoas left|psoas right|quadratus left
"""


def _sets(table: str) -> list[list[str]]:
    """Names of a set are parted by bars, or blanks if there is no bar."""
    sets = [one.strip() for one in table.replace("\n", ";").split(";")]
    return [one.split("|") if "|" in one else one.split() for one in sets if one]


@pytest.mark.parametrize("names", _sets(PAIRS), ids=" ".join)
def test_a_pair(names: list[str]):
    one, other = names
    for others in ([], ["liver"], ["L1", "L2", "L3"], ["background", "foreground"], ["spleen left", "spleen right"]):
        found = sides_of([*others[:1], one, *others[1:], other])
        assert (found.partner[one], found.partner[other]) == (other, one)
        assert not found.unclear


@pytest.mark.parametrize("names", _sets(NO_SIDES), ids=" ".join)
def test_no_sides(names: list[str]):
    found = sides_of(names)
    assert found.partner == {name: name for name in names}
    assert not found.unclear


@pytest.mark.parametrize("names", _sets(UNCLEAR), ids=" ".join)
def test_what_names_cannot_tell(names: list[str]):
    found = sides_of(names)
    assert found.unclear
    assert found.partner.keys() | found.unclear.keys() == {*names}


def test_several_pairs_and_what_has_no_side():
    names = ["psoas_L", "psoas_R", "L1", "L2", "Femur-L", "Femur-R", "sacrum"]
    others = ["psoas_R", "psoas_L", "L1", "L2", "Femur-R", "Femur-L", "sacrum"]
    assert sides_of(names).partner == dict(zip(names, others, strict=True))


def test_counterparts_are_mutual_whatever_the_order():
    names = ["kidney left", "kidney right", "rib_L_1", "rib_R_1", "rib_L_2", "rib_R_2", "liver", "LUL", "RUL"]
    for order in (names, names[::-1], names[3:] + names[:3]):
        partner = sides_of(order).partner
        assert all(partner[partner[name]] == name for name in names)
        assert sum(partner[name] != name for name in names) == 8
