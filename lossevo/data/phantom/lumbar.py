"""The lumbar region, drawn as in a sagittal water image: fat is dark, fluid and discs bright."""

from __future__ import annotations

import numpy as np

from lossevo.data.phantom.anatomy import LUMBAR as ANATOMY
from lossevo.data.phantom.anatomy import Floats, Point, Vertebra
from lossevo.data.phantom.scene import Region, Scene
from lossevo.data.phantom.shapes import body_mm, capsule_mm, disc_mm, ellipse_mm

# Signal in the water image before the coil, on one arbitrary scale.
CORTEX, FAT, SKIN, MUSCLE, CSF, CORD, LIGAMENT = 0.34, 0.1, 1.25, 0.88, 1.04, 0.95, 0.7
KIDNEY, VESSEL, NERVE, BOWEL = 1.15, 0.88, 0.95, 0.48


def draw(scene: Scene) -> None:
    """The whole picture, from the skin inwards. Numbers per level run from T11 to S2 and are mm."""
    grain = scene.texture(4.0, 2.2, 2.2)
    strands = scene.texture(4.0, 4.0, 18.0)
    lumps = scene.texture(14.0, 10.0, 16.0)
    depth = _trunk(scene, lumps, grain)
    _abdomen(scene, grain)
    _muscles(scene, strands)
    _canal(scene, strands)
    for upper, lower in zip(scene.column.vertebrae[:-1], scene.column.vertebrae[1:], strict=True):
        _disc(scene, upper, lower, grain)
    for vertebra in scene.column.vertebrae:
        _vertebra(scene, vertebra, 1 + 0.085 * grain + 0.05 * lumps)
    _coil(scene, depth)


def _trunk(scene: Scene, lumps: Floats, grain: Floats) -> Floats:
    """Skin, subcutaneous fat and what fills the cavity; returns the depth below the skin of the back (mm)."""
    thin, thick = np.sort(scene.rng.uniform(3.0, 22.0, 2))
    depth = scene.ahead + _fascia_mm(scene) + scene.along(np.linspace(thin, thick + 6, len(ANATOMY.levels)))
    belly = scene.rng.uniform(65.0, 115.0) + 4 * lumps[:, :1, :]
    inside = np.maximum(-depth, scene.ahead - belly - scene.rng.uniform(8.0, 30.0))
    scene.paint(inside, SKIN)
    scene.paint(inside + 2.2, FAT)
    cavity = np.maximum(-scene.ahead - 40, scene.ahead - belly)
    scene.paint(cavity, 0.8 * MUSCLE)
    scene.paint(cavity + 9, np.clip(BOWEL * (1 + 0.7 * np.tanh(1.5 * lumps) + 0.08 * grain), 0.02, None))
    return np.asarray(depth)


def _fascia_mm(scene: Scene) -> Floats:
    """How far behind the column the back muscles end: a furrow over the spinous processes, thin over the sacrum."""
    height = scene.along((66.0, 68.0, 70.0, 73.0, 75.0, 73.0, 66.0, 48.0, 34.0))
    lateral = np.abs(scene.side)
    return np.asarray(height + 9 * np.clip(lateral / 22, 0, 1) - 6 * np.clip(lateral / 60, 0, 1))


def _abdomen(scene: Scene, grain: Floats) -> None:
    """Kidneys, and in front of the bodies the aorta on the left and the vena cava on the right, parting below L4."""
    l1, l4 = scene.column["L1"].centre_mm[2], scene.column["L4"].centre_mm[2]
    for hand in (-1, 1):
        ahead, side, z = scene.rng.normal((-4.0, hand * 47.0, l1 + 10), (4.0, 3.0, 8.0)).tolist()
        across = ((scene.ahead - ahead) / 24) ** 2 + ((scene.side - side) / 23) ** 2
        radius = np.sqrt(across + ((scene.z - z) / 46) ** 2)
        scene.paint((radius - 1.12) * 24, 1.5 * FAT)
        scene.paint((radius - 1) * 24, KIDNEY * (1 + 0.05 * grain))
    front = scene.along([vertebra.half_depth_mm for vertebra in scene.column.vertebrae])
    sway = scene.along(scene.rng.normal(0.0, 3.0, len(ANATOMY.levels)))
    parting = 0.45 * np.clip(l4 - scene.z, 0, None)
    for hand, lateral, girth in ((-1, 7.0, (7.0, 9.0)), (1, 12.0, (7.0, 10.0))):
        radius_mm, signal = scene.rng.uniform(*girth), scene.rng.normal(VESSEL, 0.15)
        tube = np.hypot(scene.side - sway - hand * (lateral + parting), scene.ahead - front - radius_mm) - radius_mm
        scene.paint(tube - 1, 5 * FAT)
        scene.paint(tube, signal * (1 + 0.08 * grain))


def _muscles(scene: Scene, strands: Floats) -> None:
    """Psoas (above it the crus) beside the bodies, erector spinae and multifidus behind them, with fatty strands."""
    lateral, lean = np.abs(scene.side), MUSCLE * (1 + 0.05 * strands)
    bulk = float(scene.rng.normal(1.0, 0.1))
    wide = bulk * scene.along((4.0, 5.0, 11.0, 15.0, 19.0, 21.0, 22.0, 20.0, 18.0))
    deep = bulk * scene.along((12.0, 13.0, 18.0, 22.0, 25.0, 26.0, 25.0, 22.0, 18.0))
    medial = scene.along([0.8 * vertebra.half_width_mm for vertebra in scene.column.vertebrae])
    ahead = scene.along((-2.0, -2.0, -4.0, -5.0, -3.0, 0.0, 6.0, 20.0, 34.0))
    scene.paint((np.hypot((lateral - medial - wide) / wide, (scene.ahead - ahead) / deep) - 1) * wide, lean)

    infiltration = float(np.clip(scene.rng.normal(0.2, 0.25), -0.2, 0.8))
    streaks = 0.7 * np.clip(0.8 * (strands - 1.5) + infiltration, 0, 1)
    edge = scene.along((22.0, 22.0, 22.0, 23.0, 24.0, 26.0, 28.0, 26.0, 24.0))
    back = np.maximum(scene.ahead + edge + strands, -scene.ahead - _fascia_mm(scene))
    scene.paint(back - 1.5, 1.5 * FAT)
    scene.paint(back, lean * (0.9 - streaks))
    scene.paint(np.maximum(back, lateral - 4), LIGAMENT * (1 + 0.25 * strands))


def _canal(scene: Scene, strands: Floats) -> None:
    """Epidural fat, the dural sac with its fluid, the cord down to L1/L2 and the roots of the cauda below."""
    behind = -scene.ahead - scene.along([vertebra.half_depth_mm - 2.5 for vertebra in scene.column.vertebrae])
    scene.paint((np.hypot(scene.side / 14, (behind - 9) / 11) - 1) * 11, 5 * FAT)
    fluid = CSF * float(scene.rng.normal(1.0, 0.1))
    deep = scene.along((7.5, 7.5, 8.0, 8.0, 7.8, 7.8, 7.3, 5.0, 2.0))
    wide = scene.along((9.0, 9.5, 10.0, 10.5, 10.5, 10.5, 10.0, 7.0, 3.0))
    scene.paint(ellipse_mm(scene.side, behind - deep, wide, deep), fluid)
    above_conus = scene.z - float(scene.column["L2"].centre_mm[2] + 18)
    girth = np.clip(above_conus / 8 + 2, 0.5, 4.5)
    scene.paint(np.maximum(np.hypot(scene.side, behind - 8) - girth, -above_conus - 14), CORD)
    cauda = ellipse_mm(scene.side, behind - 11, 8.0, 3.0)
    scene.paint(np.maximum(cauda, above_conus), fluid - 0.15 + 0.1 * strands)


def _disc(scene: Scene, upper: Vertebra, lower: Vertebra, grain: Floats) -> None:
    """Annulus and nucleus."""
    where = scene.around((upper.centre_mm + lower.centre_mm) / 2, (40.0, 40.0, 30.0))
    distance = disc_mm(upper, lower, *scene.points(where))
    scene.paint(distance, 0.7 * upper.disc, where)
    scene.paint(distance + 3, upper.disc * (1 + 0.04 * grain[where]), where)


def _vertebra(scene: Scene, vertebra: Vertebra, texture: Floats) -> None:
    """Body with its vein, pedicles, arch, processes, and the nerve roots that leave below the pedicles."""
    rng, r = scene.rng, vertebra.pedicle_radius_mm
    wall, low = -vertebra.half_depth_mm, -vertebra.half_height_mm
    where = scene.around(vertebra.centre_mm - 27 * vertebra.axes[1], (70.0, 60.0, 52.0))
    u, v, w = vertebra.local(*scene.points(where))
    lateral = np.abs(u)
    marrow = vertebra.marrow * texture[where]

    def rods(start: Point, end: Point, radius_mm: float) -> Floats:
        return capsule_mm(lateral, v, w, start, end, radius_mm)

    def bone(distance: Floats, signal: Floats) -> None:
        scene.paint(distance, CORTEX, where)
        scene.paint(distance + 1, signal, where)

    if vertebra.level.startswith("S"):
        alae = rods((16, -5, 0), (48, -16, -4), 0.9 * vertebra.half_height_mm)
        crest = capsule_mm(0.5 * u, v, w, (0, wall - 18, 8), (0, wall - 22, -8), 5.0)
        bone(np.minimum(alae, crest), 0.95 * marrow)
    else:
        droop, length, bulk, tip_back, tip_up = rng.normal((15, 50, 6, 13, 8), (2.0, 2.5, 1.0, 2.0, 3.0)).tolist()
        scene.paint(rods((13, wall - 5, low), (24, wall - 6, low - 4), 5.5), 5 * FAT, where)
        scene.paint(rods((10, wall - 6, low + 3), (22, wall - 5, low - 5), 2.8), NERVE, where)
        scene.paint(rods((18, wall - 17, -14), (16, wall - 22, -24), 8.0), 5 * FAT, where)
        # Scaled coordinates flatten a rod: tall laminae, and the spinous process as a plate that widens backwards.
        transverse = rods((17 + r, wall - 9, 5), (40, wall - tip_back, tip_up), 4.2)
        articular = rods((19, wall - 12, 14), (17, wall - 20, -16), 6.0)
        laminae = capsule_mm(lateral, v, w / 1.8, (14, wall - 20, -2), (1, wall - 28, -5), 4.2)
        spinous = capsule_mm(2.6 * u, v, w, (0, wall - 29, -9), (0, wall - length, -droop), bulk, flare_mm=5.0)
        pedicles = capsule_mm(lateral, v, 0.75 * w, (11 + r, wall + 3, 4.5), (12.5 + r, wall - 13, 4), r)
        bone(np.minimum.reduce([transverse, articular, laminae, spinous, pedicles]), 0.95 * marrow)
        scene.paint(rods((17, wall - 15, 15), (20, wall - 19, 20), 1.5), NERVE, where)  # fluid in the facet joint
    bone(body_mm(vertebra, u, v, w), marrow)
    vein = capsule_mm(u, v, w, (0, wall + 4, 0), (0, wall + rng.uniform(4.5, 11.0), rng.normal()), 1.6)
    scene.paint(vein, rng.uniform(0.5, 1.1), where)


def _coil(scene: Scene, depth: Floats) -> None:
    """Shade by a spine coil under the back: even across the column, fading in the abdomen and towards both ends."""
    near = np.clip(depth, 0, None)
    reach_mm, ends, middle_mm = scene.rng.uniform((118.0, 0.05, -25.0), (175.0, 0.5, 25.0)).tolist()
    sensitivity = (1 + 0.22 * np.exp(-near / 12)) / (1 + (near / reach_mm) ** 4)
    sensitivity = sensitivity * (1 - ends * ((scene.z - middle_mm) / 112) ** 2)
    scene.signal *= sensitivity * np.exp(0.12 * scene.texture(70.0, 70.0, 70.0))


REGION = Region(
    name="lumbar",
    channel="water",
    anatomy=ANATOMY,
    draw=draw,
    field_of_view_mm=(76.0, 224.0, 224.0),
    native_spacing_mm=(4.0, 1.0, 1.0),
    training_spacing_mm=(4.0, 4.0, 4.0),
    finest_mm=(2.0, 2.0, 2.0),
    point_spread_mm=(2.0, 0.5, 0.5),
    mean_intensity=57.0,  # of the 8-bit cohort that the phantom imitates
    noise_sd=2.0,
    noise_spread_mm=0.55,
    rater_sd_mm=0.95,
    overreach_mm=(2.8, 2.0, 1.8),
    slack_mm=(0.25, 0.5),
)
