"""patterns.py: the test-pattern sources of the shipped corpus, as ffmpeg filter graphs. Renders nothing.

Sources come in pairs of one character (two speeds, two densities, two seeds of a generator), because a model
that never saw anything like a source cannot be judged on it. OUTLIER is the deliberate exception: it is alone.
Every random generator has a seed, so that a graph stands for one clip; opening a source checks it.
"""

from __future__ import annotations

from types import MappingProxyType

_SIZE = "576x324"
_RATE = 24  # frames per second
FRAME_COUNT = 48  # 2 s

_ZOOM = f"x='iw/2-iw/zoom/2':y='ih/2-ih/zoom/2':d=1:s={_SIZE}:fps={_RATE}"
_GRADIENT = (  # every colour is named: a default one is another each time, whatever the seed
    f"gradients=s={_SIZE}:r={_RATE}:x0=0:y0=0:x1=575:y1=323:seed=5:n=6"
    ":c0=steelblue:c1=gold:c2=darkgreen:c3=orchid:c4=navy:c5=salmon"
)
_FAINT = "format=yuv420p,scale=1440:832:flags=bicubic,lutyuv=y='80+val*0.3'"
_PERLIN = f"perlin=s={_SIZE}:r={_RATE}"
_SEEDED = "random_mode=seed:seed"
_STILL = "trim=end_frame=1,loop=loop=-1:size=1"  # one frame, repeated for ever


def _pan(dx: float, dy: float) -> str:
    """A window of 576x324 that moves dx, dy pixels a frame over a larger picture."""
    return f"crop=576:324:x='n*{dx}':y='n*{dy}':exact=1"


PATTERNS = MappingProxyType(
    {
        "testsrc2": f"testsrc2=s={_SIZE}:r={_RATE}",
        "testsrc2-large": f"testsrc2=s=768x432:r={_RATE},crop=576:324",
        "mandelbrot-slow": f"mandelbrot=s={_SIZE}:r={_RATE}:end_pts=400",
        "mandelbrot-fast": f"mandelbrot=s={_SIZE}:r={_RATE}:end_pts=160",
        "mandelbrot-grain": f"mandelbrot=s={_SIZE}:r={_RATE}:end_pts=400,noise=alls=10:allf=t:all_seed=11",
        "mandelbrot-grain-strong": f"mandelbrot=s={_SIZE}:r={_RATE}:end_pts=240,noise=alls=16:allf=t:all_seed=12",
        "life-slow": f"life=s=144x81:r=2:seed=3:mold=20:mold_color=blue,scale=576:324:flags=bicubic,"
        f"framerate=fps={_RATE}:interp_start=0:interp_end=255:scene=100",
        "life-slower": f"life=s=144x81:r=1.5:seed=4:mold=20:mold_color=green,scale=576:324:flags=bicubic,"
        f"framerate=fps={_RATE}:interp_start=0:interp_end=255:scene=100",
        "grain-pan-slow": f"color=gray:s=800x450:r={_RATE},noise=alls=60:all_seed=21,gblur=1.5,{_STILL},{_pan(1, 0.5)}",
        "grain-pan-fast": f"color=gray:s=800x450:r={_RATE},noise=alls=60:all_seed=22,gblur=1.5,{_STILL},{_pan(2, 1)}",
        "gradients-linear": f"{_GRADIENT}:type=linear:speed=0.02,format=yuv420p,noise=alls=6:allf=t:all_seed=51",
        "gradients-spiral": f"{_GRADIENT}:type=spiral:speed=0.02,format=yuv420p,noise=alls=8:allf=t:all_seed=52",
        "cellauto-pan": f"cellauto=s=360x208:r={_RATE}:rule=110:seed=6,{_STILL},{_FAINT},{_pan(1, 0)}",
        "cellauto-pan-fast": f"cellauto=s=360x208:r={_RATE}:rule=30:seed=7,{_STILL},{_FAINT},{_pan(1, 1)}",
        "sierpinski-carpet": f"sierpinski=s={_SIZE}:r={_RATE}:seed=9:jump=4:type=carpet",
        "sierpinski-triangle": f"sierpinski=s={_SIZE}:r={_RATE}:seed=10:jump=4:type=triangle",
        "perlin-coarse": f"{_PERLIN}:octaves=4:persistence=0.7:xscale=6:yscale=4:tscale=0.4:{_SEEDED}=1",
        "perlin-fine": f"{_PERLIN}:octaves=5:persistence=0.8:xscale=8:yscale=6:tscale=0.6:{_SEEDED}=2",
        "bars-zoom": f"smptehdbars=s=1152x648:r={_RATE},zoompan=z='1+0.01*on':{_ZOOM}",
        "bars-zoom-fast": f"smptebars=s=1152x648:r={_RATE},zoompan=z='1+0.02*on':{_ZOOM}",
        "zoneplate-slow": f"zoneplate=s={_SIZE}:r={_RATE}:kx2=180:ky2=180:kt=4",
        "zoneplate-fast": f"zoneplate=s={_SIZE}:r={_RATE}:kx2=140:ky2=140:kt=9",
    }
)

OUTLIER = MappingProxyType(
    {  # life at full rate, and every second frame a negative: its motion2 is far above every other source's
        "life-flicker": f"life=s=288x162:r={_RATE}:seed=13,scale=576:324:flags=neighbor,negate=enable='mod(n\\,2)'",
    }
)
