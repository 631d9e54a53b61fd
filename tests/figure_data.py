"""What a Matplotlib figure shows, as numbers and words: an output of its own beside the picture.

`check_notebooks.py` executes notebooks with it, and compares figures by these data. For each axes: limits and scales,
all words, and for each kind of artist how many there are and where they stand, as fractions of the axes; for a picture
within the axes its values, as fractions of the range of its colours.
"""
import json
import sys

import numpy as np

KIND = "application/x-figure-data"
SAMPLES = 16                                                       # so many places stand for all artists of a kind


def places(artist, ax) -> np.ndarray:
    "Where an artist of these axes stands, (n, 2) fractions of the axes; (n, 1) for the values of a picture."
    if hasattr(artist, "get_array") and not hasattr(artist, "get_sizes") and (z := artist.get_array()) is not None:
        z = np.ma.asarray(z, float)/(255 if z.dtype == np.uint8 else 1)
        return np.ma.filled(z if z.ndim == 3 else artist.norm(z), np.nan).reshape(-1, 1)
    if hasattr(artist, "arrow_patch"): points = ax.transData.transform([artist.xy, artist.xyann])
    elif hasattr(artist, "get_offsets") and len(artist.get_offsets()) > 1:
        points = artist.get_offset_transform().transform(artist.get_offsets())
    elif hasattr(artist, "get_paths"):
        points = np.concatenate([artist.get_transform().transform(path.vertices) for path in artist.get_paths()]
                                or [np.zeros((0, 2))])
    else: points = artist.get_transform().transform(artist.get_path().vertices)
    return ax.transAxes.inverted().transform(np.ma.filled(np.ma.asarray(points, float), np.nan).reshape(-1, 2))


def summary(artists: list, ax) -> list:
    "How many artists, how many places, their mean, and some of them, in a row."
    found = np.concatenate([places(artist, ax) for artist in artists])
    found = found[np.isfinite(found).all(1)]
    if not len(found): return [len(artists), 0]
    some = found[np.linspace(0, len(found) - 1, SAMPLES).astype(int)] if len(found) > SAMPLES else found
    return [len(artists), len(found), *np.vstack([found.mean(0), some]).round(4).ravel().tolist()]


def words(ax) -> list[str]:
    "All that is written in and around the axes, but for the numbers on its axes."
    from matplotlib.text import Text
    from matplotlib.ticker import FixedFormatter

    sides = [axis for axis in (ax.xaxis, ax.yaxis, getattr(ax, "zaxis", None)) if axis]
    named = [label.get_text() for axis in sides if isinstance(axis.get_major_formatter(), FixedFormatter)
             for label in axis.get_ticklabels()]
    ticks = {text for axis in sides for text in axis.findobj(Text)}
    free = [text.get_text() for text in ax.findobj(Text) if text not in ticks]
    return [text for text in (*(axis.get_label_text() for axis in sides), *free, *named) if text]


def drawn(ax) -> dict[str, list]:
    "The artists in the axes that are not its frame, by kind."
    found: dict[str, list] = {}
    arrows = [text for text in ax.texts if getattr(text, "arrow_patch", None) and text.anncoords == "data"]
    for artist in (*ax.lines, *ax.patches, *ax.collections, *ax.images, *arrows):
        if artist.get_visible(): found.setdefault(type(artist).__name__, []).append(artist)
    return found


def figure_data(fig) -> str:
    "The data of a figure, as JSON."
    fig.draw_without_rendering()
    around = [*fig.texts, *(text for legend in fig.legends for text in legend.get_texts())]
    return json.dumps({"words": [text.get_text() for text in around], "axes": [{
        "limits": [float(f"{end:.6g}") for end in (*ax.get_xlim(), *ax.get_ylim())],
        "scales": [ax.get_xscale(), ax.get_yscale()],
        "words": words(ax),
        "drawn": {kind: summary(artists, ax) for kind, artists in drawn(ax).items()}} for ax in fig.axes]},
        ensure_ascii=False)


def load(shell):
    "From now on this IPython shell gives each figure its data."
    from IPython.core.formatters import BaseFormatter
    from traitlets import ObjectName, Unicode

    class FigureData(BaseFormatter):
        format_type, print_method = Unicode(KIND), ObjectName("_repr_figure_data_")

        def __call__(self, shown):   # a printer by type would be taken out again when Matplotlib sets up its own
            figure = sys.modules.get("matplotlib.figure")
            return figure_data(shown) if figure and isinstance(shown, figure.Figure) else None

    shell.display_formatter.formatters[KIND] = FigureData(parent=shell.display_formatter)
