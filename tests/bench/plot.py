"""Curves as SVG, the same file for the same figures; nothing where matplotlib is absent."""

from collections.abc import Mapping, Sequence
from pathlib import Path

Curves = Mapping[str, Sequence[tuple[float, float]]]


def can_plot() -> bool:
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("svg")
    # Otherwise names within the file are made up again each time.
    matplotlib.rcParams["svg.hashsalt"] = "uecwatchd"
    return True


def plot(path: Path, curves: Curves, *, x: str, y: str, log: bool = False) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), label=name, marker="o" if log else None)
    if log:
        axes.set_xscale("log")
        axes.set_yscale("log")
    axes.set(xlabel=x, ylabel=y)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    pyplot.close(figure)
