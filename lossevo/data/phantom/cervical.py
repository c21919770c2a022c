"""The cervical region, drawn as in a sagittal T2-weighted turbo spin echo: fat and fluid bright, muscle dark."""

from __future__ import annotations

import numpy as np

from lossevo.data.phantom.anatomy import CERVICAL as ANATOMY
from lossevo.data.phantom.anatomy import Floats, Point, Vertebra
from lossevo.data.phantom.scene import Region, Scene
from lossevo.data.phantom.shapes import body_mm, capsule_mm, dens_mm, disc_mm, ellipse_mm

# Signal before the coil, on one arbitrary scale.
AIR, CORTEX, LIGAMENT, MUSCLE, FAT, SKIN, CSF, CORD = 0.01, 0.14, 0.14, 0.24, 0.8, 0.5, 1.2, 0.5
BRAIN, MUCOSA, TONGUE, THYROID, FLOWING = 0.6, 0.6, 0.33, 0.45, 0.06


def draw(scene: Scene) -> None:
    """The whole picture, from the skin inwards. Numbers per level run from C2 to T4 and are mm."""
    grain = scene.texture(4.0, 1.6, 1.6)
    strands = scene.texture(6.0, 5.0, 14.0)
    lumps = scene.texture(12.0, 9.0, 12.0)
    depth = _neck(scene, lumps, strands)
    _head(scene, lumps, grain)
    _throat(scene, grain)
    _muscles(scene, strands)
    _canal(scene, grain, strands)
    for upper, lower in zip(scene.column.vertebrae[:-1], scene.column.vertebrae[1:], strict=True):
        _disc(scene, upper, lower, grain)
    texture, shift_mm = 1 + 0.06 * grain + 0.05 * lumps, float(scene.rng.normal(0.0, 0.5))
    for vertebra in scene.column.vertebrae:
        _vertebra(scene, vertebra, texture, shift_mm)
    _coil(scene, depth)


def _neck(scene: Scene, lumps: Floats, strands: Floats) -> Floats:
    """Skin and subcutaneous fat of neck, chin and upper chest; returns the depth below the nearest skin (mm)."""
    rng = scene.rng
    slim, bulk = rng.uniform(0.0, 9.0), float(rng.normal(1.0, 0.07))
    fat = scene.along(slim + np.array((5.0, 5.0, 5.0, 6.0, 8.0, 11.0, 14.0, 15.0, 14.0, 12.0)))
    back = scene.ahead + bulk * scene.along((58.0, 55.0, 54.0, 55.0, 58.0, 62.0, 64.0, 62.0, 58.0, 54.0)) + fat
    chin = rng.normal(0.0, 6.0)
    front = scene.along(
        np.array((112.0, 95.0, 72.0, 58.0, 55.0, 58.0, 66.0, 78.0, 92.0, 105.0)) + chin * np.linspace(1, 0, 10)
    )
    inside = np.maximum(-back, scene.ahead - front - slim / 2)
    scene.paint(inside, SKIN)
    scene.paint(inside + 1.8, FAT * (1 + 0.12 * strands))
    flesh = np.maximum(-back + fat, scene.ahead - front + 3)
    scene.paint(flesh, MUSCLE * (1 + 0.3 * np.tanh(lumps)) + 0.12 * np.clip(strands, 0, None))
    return np.asarray(-inside)


def _head(scene: Scene, lumps: Floats, grain: Floats) -> None:
    """Brain above the foramen magnum with the clivus before it, tongue, palate and jaw."""
    rng, c2, c3 = scene.rng, float(scene.column["C2"].centre_mm[2]), float(scene.column["C3"].centre_mm[2])
    where = (slice(None), slice(None), slice(int(np.searchsorted(scene.z.ravel(), c3 - 24)), None))
    wide, ahead, z = np.abs(scene.side[where]), scene.ahead[where], scene.z[where]
    lumps, grain = lumps[where], grain[where]
    top = c2 + 30 + float(rng.normal(0, 2))
    skull = 48 * np.hypot(np.hypot((ahead + 28) / 62, wide / 70), (z - top - 44) / 48) - 48
    for thickness_mm, signal in ((0.0, CORTEX), (1.5, 0.5 * FAT), (3.5, CORTEX), (5.0, CSF)):
        scene.paint(skull + thickness_mm, signal, where)
    scene.paint(skull + 7, BRAIN * (1 + 0.15 * np.tanh(lumps) + 0.05 * grain), where)
    clivus = capsule_mm(wide / 1.5, ahead, z, (0, 6, top - 2), (0, 34, top + 26), 5.5)
    scene.paint(clivus, CORTEX, where)
    scene.paint(clivus + 1.2, 0.6 * FAT, where)
    tongue = 24 * np.hypot(np.hypot((ahead - 52) / 30, wide / 26), (z - c2 + 4) / 24) - 24 - lumps
    scene.paint(tongue - 1.5, 0.7 * FAT, where)
    scene.paint(tongue, TONGUE * (1 + 0.3 * np.tanh(lumps) + 0.06 * grain), where)
    palate = capsule_mm(wide / 1.8, ahead, z, (0, 22, c2 + 16), (0, 66, c2 + 26), 3.0)
    scene.paint(palate - float(rng.uniform(0, 4)), AIR, where)
    scene.paint(palate, 0.5 * FAT, where)
    jaw = np.maximum(ellipse_mm(ahead - 84, z - c3 + 3, 7.0, 11.0), wide - 22)
    scene.paint(jaw, CORTEX, where)
    scene.paint(jaw + 2, 0.75 * FAT, where)


def _throat(scene: Scene, grain: Floats) -> None:
    """Pharynx, larynx and trachea with air in them, closer to the column above than below; gullet, vessels, lungs."""
    rng, level = scene.rng, {vertebra.level: float(vertebra.centre_mm[2]) for vertebra in scene.column.vertebrae}
    wide, ahead = np.abs(scene.side), scene.ahead
    width = scene.along((9.0, 10.0, 10.0, 8.0, 7.0, 7.5, 8.0, 8.0, 8.0, 8.0))
    deep = scene.along((5.0, 6.0, 6.0, 5.0, 6.0, 7.5, 7.5, 7.5, 7.5, 7.5)) * float(rng.normal(1.0, 0.12))
    gap = scene.along((5.0, 5.0, 6.0, 12.0, 15.0, 15.0, 14.0, 13.0, 12.0, 12.0)) + float(rng.normal(0, 1))
    ahead = ahead - scene.along([vertebra.half_depth_mm for vertebra in scene.column.vertebrae])
    tube = ellipse_mm(scene.side, ahead - gap - deep, width, deep)
    scene.paint(tube - 2.2, MUCOSA)
    scene.paint(tube, AIR)
    gullet = ellipse_mm(scene.side + 3, ahead - 6.5, 8.0, 3.2)
    scene.paint(np.maximum(gullet, scene.z - level["C6"] - 4), 0.4 * (1 + 0.2 * grain))
    epiglottis = capsule_mm(wide / 2, ahead - gap, scene.z, (0, 12, level["C4"]), (0, 6, level["C3"]), 1.2)
    scene.paint(epiglottis, MUCOSA)
    thyroid = ellipse_mm(wide - 15, ahead - 20, 8.0, 8.0)
    scene.paint(np.maximum(thyroid, np.abs(scene.z - level["C7"]) - 20), THYROID * (1 + 0.06 * grain))
    carotid = np.hypot(wide - 23, ahead - 8)
    scene.paint(carotid - 5, 0.6 * FAT)
    scene.paint(carotid - 3.6, FLOWING)
    scene.paint(ellipse_mm(wide - 30, ahead - 4, 5.0, 6.0), float(rng.uniform(FLOWING, 0.5)))
    lungs = 26 * np.hypot(np.hypot((ahead - 2) / 38, (wide - 42) / 26), (scene.z - level["T4"] + 18) / 62) - 26
    scene.paint(lungs, AIR)


def _muscles(scene: Scene, strands: Floats) -> None:
    """Longus colli before the bodies, scalenes beside them, the layers of the nape behind them with fat between."""
    lateral, lean = np.abs(scene.side), MUSCLE * (1 + 0.15 * strands)
    face = scene.along([vertebra.half_depth_mm for vertebra in scene.column.vertebrae])
    longus = ellipse_mm(lateral - 8, scene.ahead - face - 1.5, 6.0, 3.0)
    scene.paint(longus, 1.3 * lean)
    fatty = float(np.clip(scene.rng.normal(0.3, 0.25), 0.0, 1.0))
    nape = -scene.ahead - scene.along((20.0, 20.0, 20.0, 20.0, 21.0, 22.0, 23.0, 24.0, 24.0, 24.0))
    end = scene.along((54.0, 51.0, 50.0, 51.0, 54.0, 58.0, 60.0, 58.0, 54.0, 50.0)) - 20
    back = np.maximum(-nape, nape - end)
    streaks = fatty * (FAT - MUSCLE) * np.clip(strands - 0.6, 0, 1)
    scene.paint(back, lean + streaks)
    for layer in (0.36, 0.7):
        sheet = np.abs(nape - end * (layer + 0.0025 * lateral) - 1.2 * strands) - (0.5 + 1.2 * fatty)
        scene.paint(np.maximum(sheet, back), 0.75 * FAT)
    midline = np.maximum(lateral - 2.2, np.maximum(-nape - 2, nape - end - 4))
    scene.paint(midline, 0.5 * FAT * (1 + 0.5 * np.tanh(strands)))


def _canal(scene: Scene, grain: Floats, flow: Floats) -> None:
    """Epidural fat, fluid with its flow voids, and the cord, which widens into the brain stem."""
    behind = -scene.ahead - scene.along([vertebra.half_depth_mm + 0.5 for vertebra in scene.column.vertebrae])
    deep = scene.along((8.2, 7.4, 6.9, 6.8, 6.7, 6.8, 6.8, 6.8, 6.8, 6.8)) * float(scene.rng.normal(1.0, 0.07))
    scene.paint(ellipse_mm(scene.side, behind - deep, 13.5, deep + 2), LIGAMENT)
    scene.paint(ellipse_mm(scene.side, behind - deep - 1.5, 11.5, deep), 0.6 * FAT)
    scene.paint(ellipse_mm(scene.side, behind - deep, 11.5, deep), CSF * (1 - 0.2 * np.clip(flow, 0, 1.5)))
    wide = scene.along((6.2, 6.2, 6.5, 6.8, 6.8, 6.2, 5.4, 4.8, 4.6, 4.5))
    thick = scene.along((4.0, 3.8, 3.7, 3.6, 3.5, 3.4, 3.3, 3.2, 3.2, 3.2))
    forward = float(scene.rng.normal(-0.3, 0.6))
    scene.paint(ellipse_mm(scene.side, behind - deep - forward, wide, thick), CORD * (1 + 0.04 * grain))
    above = np.clip((scene.z - scene.column["C2"].centre_mm[2] - 18) / 30, 0, 1)
    scene.paint(
        ellipse_mm(scene.side, behind - deep, 6.0 + 5 * above, 3.8 + 5 * above), BRAIN - (BRAIN - CORD) * (1 - above)
    )


def _disc(scene: Scene, upper: Vertebra, lower: Vertebra, grain: Floats) -> None:
    """Annulus and nucleus; a degenerate disc bulges into the canal."""
    where = scene.around((upper.centre_mm + lower.centre_mm) / 2, (24.0, 24.0, 16.0))
    distance = disc_mm(upper, lower, *scene.points(where))
    bulge = float(np.clip(scene.rng.normal(0.3, 0.7), -0.5, 2.0))
    scene.paint(distance - bulge, LIGAMENT + 0.05, where)
    scene.paint(distance + 2, upper.disc * (1 + 0.05 * grain[where]), where)


def _vertebra(scene: Scene, vertebra: Vertebra, texture: Floats, shift_mm: float) -> None:
    """Articular pillars, laminae, spinous process and body; the arches of C1 are drawn with C2."""
    rng = scene.rng
    wall, low, half = -vertebra.half_depth_mm, -vertebra.half_height_mm, vertebra.half_width_mm
    where = scene.around(
        vertebra.centre_mm - 20 * vertebra.axes[1], (32.0, 48.0, 26.0 if vertebra.level in ("C3", "C4", "C5") else 36.0)
    )
    u, v, w = vertebra.local(*scene.points(where))
    lateral = np.abs(u)
    marrow = vertebra.marrow * texture[where]
    long = {"C2": 44.0, "C6": 46.0, "C7": 54.0}.get(vertebra.level, 56.0 if vertebra.level[0] == "T" else 37.0)
    steep = {"C": 4.0, "T": 18.0}[vertebra.level[0]]

    def rods(start: Point, end: Point, radius_mm: float) -> Floats:
        return capsule_mm(lateral, v, w, start, end, radius_mm)

    def bone(distance: Floats, signal: Floats) -> None:
        scene.paint(distance, CORTEX, where)
        scene.paint(distance + 0.7, signal, where)

    # Roots leave above the pillars in a cuff of fluid and fat; the vertebral artery runs through the processes.
    scene.paint(rods((11, wall - 3, low - 1), (22, wall + 4, low - 4), 2.6), 0.7 * FAT, where)
    scene.paint(rods((10, wall - 4, low - 1), (22, wall + 3, low - 4), 1.4), 0.7 * CSF, where)
    length, droop, bulk = rng.normal((long, steep, 3.4), (2.5, 2.0, 0.5)).tolist()
    pillars = capsule_mm(lateral, v, w / 1.2, (half + 8, wall - 5, 2), (half + 7.5, wall - 8, -3), 5.5)
    transverse = rods((half + 1, wall + 6, 0), (half + 9, wall + 4, -2), 2.2)
    pedicles = rods((half - 1, wall + 2, 2), (half + 5, wall - 4, 2), vertebra.pedicle_radius_mm)
    laminae = capsule_mm(lateral, v, w / 1.7, (half + 3, wall - 10, -1), (1, wall - 18, -2), 2.5)
    spinous = capsule_mm(1.8 * u, v, w, (0, wall - 19, -4), (0, wall - length, -4 - droop), bulk, flare_mm=1.8)
    bone(np.minimum.reduce([pillars, transverse, pedicles, laminae, spinous]), 0.95 * marrow)
    if vertebra.level[0] == "C":
        artery = np.maximum(np.hypot(lateral - half - 3, v - wall - 5) - 2.0, np.abs(w) - 10)
        scene.paint(artery, FLOWING, where)
    if vertebra.level == "C2":
        peg = vertebra.half_height_mm + 8
        arches = capsule_mm(lateral, v, w / 1.3, (0, 9, peg / 1.3), (12, 6, peg / 1.3), 3.2)
        masses = rods((17, -3, peg), (19, -5, peg - 6), 6.0)
        rear = capsule_mm(lateral, v, w / 1.2, (0, wall - 22, (peg - 2) / 1.2), (16, wall - 10, peg / 1.2), 3.0)
        bone(np.minimum.reduce([arches, masses, rear]), marrow)
    _body(scene, vertebra, texture, shift_mm)


def _body(scene: Scene, vertebra: Vertebra, texture: Floats, shift_mm: float) -> None:
    """Cortex and marrow, whose fat appears ``shift_mm`` too high: one end-plate looks thicker than the other."""
    where = scene.around(vertebra.centre_mm, (17.0, 14.0, 13.0) if vertebra.level != "C2" else (15.0, 13.0, 33.0))
    u, v, w = vertebra.local(*scene.points(where))
    shape = body_mm(vertebra, u, v, w)
    inner = body_mm(vertebra, u, v, w - shift_mm)
    if vertebra.level == "C2":
        peg = dens_mm(vertebra, u, v, w)
        shape, inner = np.minimum(shape, peg), np.minimum(inner, peg)
    scene.paint(shape, CORTEX, where)
    scene.paint(np.maximum(shape, inner) + 0.6, vertebra.marrow * texture[where], where)
    if vertebra.level != "C2":
        wall = -vertebra.half_depth_mm
        vein = capsule_mm(u, v, w, (0, wall + 1, 0), (0, wall + scene.rng.uniform(2.0, 5.0), 0), 0.8)
        scene.paint(vein, scene.rng.uniform(0.4, 0.8), where)


def _coil(scene: Scene, depth: Floats) -> None:
    """Shade by a neck coil around the neck and elements under the shoulders: bright near the skin, dim below T2."""
    ends, middle_mm, near = scene.rng.uniform((0.1, 0.0, 0.1), (0.4, 30.0, 0.5)).tolist()
    sensitivity = 1 + near * np.exp(-np.clip(depth, 0, None) / 18)
    sensitivity = sensitivity * (1 - ends * np.clip((scene.z - middle_mm) / 130, -1.2, 1.2) ** 2)
    scene.signal *= sensitivity * np.exp(0.07 * scene.texture(70.0, 70.0, 70.0))


REGION = Region(
    name="cervical",
    channel="T2",
    anatomy=ANATOMY,
    draw=draw,
    field_of_view_mm=(60.0, 196.0, 224.0),
    native_spacing_mm=(4.0, 0.7, 0.7),
    training_spacing_mm=(4.0, 2.0, 2.0),
    finest_mm=(2.0, 1.0, 1.0),
    point_spread_mm=(1.0, 0.4, 0.4),
    mean_intensity=57.0,
    noise_sd=3.0,
    noise_spread_mm=0.4,
    rater_sd_mm=0.4,
    overreach_mm=(0.8, 0.6, 0.4),
    slack_mm=(0.1, 0.25),
)
