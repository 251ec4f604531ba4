"""Helpers of the notebooks: their scene and network, displayed source code, and figures with controls and clicks."""

import base64
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import pytest
import torch
from PIL import Image

import spinet.notebook.code
from spinet.data import Categories, Category, open_dataset
from spinet.figures.style import COLUMN, new_figure, to_png
from spinet.inference.candidates import find_peaks
from spinet.inference.predict import predict
from spinet.notebook import check, described, explore, input_path, lesson, output_path, pictures, source, start
from spinet.notebook.pictures import Picture
from spinet.synthcity import generate
from spinet.weights import SHIPPED, load_model


def test_a_lesson_has_the_scene_that_generate_writes(tmp_path):
    ours = lesson(1, size=[64, 128], scenes=3, training=2, seed=5)
    generate(tmp_path / "city", num_train=2, num_val=3, size=(64, 128), seed=5, progress=False)
    theirs = open_dataset(tmp_path / "city", "val")
    assert (len(ours.city), ours.city.split, ours.city.fingerprint) == (3, "val", theirs.fingerprint)
    assert len(open_dataset(ours.city.root, "train")) == 2
    assert torch.equal(ours.sample.image, theirs[1].image)
    assert torch.equal(ours.sample.segment_map, theirs[1].segment_map)
    assert len(lesson(2, size=(64, 128)).city) == 3


def test_a_lesson_has_the_packaged_network_and_its_features():
    one = lesson(size=(64, 128))
    assert one.weights == SHIPPED
    assert one.model is one.model
    assert torch.equal(one.features.phi, load_model().network(one.sample.image[None]).phi)
    assert one.features.phi.shape[-2:] == (16, 32)


def test_a_lesson_refuses_what_it_cannot_show(monkeypatch):
    with pytest.raises(ValueError, match=r"scene = -1: give 0"):
        lesson(-1)
    with pytest.raises(ValueError, match=r"size = \[100, 256\]: give multiples of 32"):
        lesson(size=[100, 256])
    with pytest.raises(FileNotFoundError, match=r"'gone\.safetensors' does not exist"):
        lesson(size=(64, 128), weights="gone.safetensors")
    stranger = replace(load_model(), categories=Categories.of([Category(1, "desk", False)]))
    monkeypatch.setattr(start, "load_model", lambda _: stranger)
    with pytest.raises(ValueError, match=r"synthcity\.safetensors: knows other classes"):
        _ = lesson(size=(64, 128)).model


def test_the_folder_of_a_lesson_goes_with_the_program():
    code = "from spinet.notebook import lesson; print(lesson(size=(64, 128)).city.root)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not Path(result.stdout.strip()).parent.exists()


def test_source_shows_the_whole_or_a_part_and_where_it_stands():
    whole = source(predict).data
    place, _, code = whole.partition("\n\n")
    path, _, line = place.partition(", line ")
    assert path == "`spinet/inference/predict.py`"
    assert code.startswith("```python\ndef predict(")
    assert code.endswith("instances=instances)\n```")
    part = source(predict, "Args:", "image:").data
    first = part.splitlines()
    assert first[3:] == [
        "Args:",
        "    model: from `load_model`.",
        "    image: uint8 RGB; also grey [H, W], a Pillow image, or the path of an image file, see `as_image`.",
        "```",
    ]  # without indentation
    with open(spinet.inference.predict.__file__, encoding="utf-8") as file:
        lines = file.read().splitlines()
    assert lines[int(line) - 1].startswith("def predict(")
    assert lines[int(first[0].partition(", line ")[2]) - 1].strip() == "Args:"
    assert source(spinet.notebook.code).data.startswith("`spinet/notebook/code.py`, line 1\n")


def test_source_that_is_not_there():
    with pytest.raises(ValueError, match=r"find_peaks has 'no such line'"):
        source(find_peaks, "no such line")
    with pytest.raises(ValueError, match=r"find_peaks has 'def find_peaks'"):
        source(find_peaks, "threshold:", "def find_peaks")  # the last line before the first


def test_a_check_says_what_it_compared(capsys):
    check("halves", [torch.tensor([1.0, 2.0]), np.array([3.0])], [torch.tensor([1.0, 2.0001]), torch.tensor([3.0])])
    assert capsys.readouterr().out == "halves: 3 numbers up to 3, largest difference 0.0001\n"
    with pytest.raises(AssertionError, match=r"halves: differ by 0\.5, values up to 2"):
        check("halves", 2.5, 2.0)
    with pytest.raises(AssertionError, match=r"halves: shapes \(2,\) and \(3,\)"):
        check("halves", torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="longer"):
        check("halves", [1.0], [1.0, 1.0])
    check("none", torch.zeros(0), torch.zeros(0))


def test_a_path_means_the_folder_of_the_caller(tmp_path, monkeypatch):
    shell, kernel = tmp_path / "shell", tmp_path / "kernel"
    for folder in (shell / "runs" / "longer", kernel / "here"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(kernel)
    monkeypatch.setenv("PWD", str(shell))
    assert input_path(None) is None
    assert input_path("here") == kernel / "here"
    assert input_path("runs/longer") == shell / "runs" / "longer"
    assert input_path(shell) == shell
    assert input_path("../figures/runs") == start.PROJECT / "figures" / "runs"
    assert output_path("new") == shell / "new"
    assert output_path(tmp_path / "new") == tmp_path / "new"
    with pytest.raises(FileNotFoundError, match=rf"'gone' does not exist; tried {kernel}/gone, {shell}/gone, "):
        input_path("gone")


def test_a_figure_has_words():
    figure = line(50)
    assert described(figure, "a  line,\n rising") is figure
    assert pictures._display(figure)[1]["alt"] == "a line, rising"
    named = line(50)
    named.axes[0].set_title("from 0\nto 50")
    assert pictures._display(named)[1]["alt"] == "from 0 to 50"


@pytest.fixture
def shown(monkeypatch):
    """The displayed outputs: (forms, metadata) of each."""
    outputs = []
    monkeypatch.setattr(pictures, "display", lambda forms, metadata, raw: outputs.append((forms, metadata, raw)))
    return outputs


def line(number, point=None):
    """A line; its axes fill the middle of the figure, 0 … 100 by 0 … 10."""
    figure = new_figure(COLUMN, 2)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0.25, 0.25, 0.5, 0.5), xlim=(0, 100), ylim=(0, 10))
    axes.plot([0, number], [0, 10])
    axes.plot(*(point or (0, 0)), "o")
    return figure


def picture_of(outputs):
    (identity,) = (output[0]["application/vnd.jupyter.widget-view+json"]["model_id"] for output in outputs)
    box = widgets.widget._instances[identity]
    assert isinstance(box.children[-1], Picture)
    return box.children[-1]


def png(figure):
    return base64.b64encode(to_png(figure)).decode()


def test_a_page_gets_a_flipbook_of_every_control(shown, monkeypatch):
    drawn = []

    def draw(number, end):
        drawn.append((number, end))
        return line(number, (end, 5))

    controls = {"number": widgets.IntSlider(50, 0, 100), "end": widgets.Dropdown(options=[1, 2])}
    explore(draw, description='a "line"', **controls)
    assert len(drawn) == 1
    assert "text/html" not in shown[0][0]
    monkeypatch.setenv(pictures.PAGES, "1")
    explore(draw, description='a "line"', **controls)
    page = shown[1][0]["text/html"]
    assert drawn[2:] == [*((n, 1) for n in (0, 17, 33, 50, 67, 83, 100)), (50, 1), (50, 2)]
    assert page.count("&quot;line&quot;") == 2
    number, end = json.loads(re.search(r"series = (\[.*\]);", page).group(1))
    assert [frame["title"] for frame in number["frames"]] == ["0", "17", "33", "50", "67", "83", "100"]
    assert [frame["title"] for frame in end["frames"]] == ["1", "2"]
    assert (number["first"], end["first"]) == (3, 0)
    frames = [frame["picture"] for frame in number["frames"] + end["frames"]]
    assert frames[3] == frames[7] != frames[0]  # both start with the initial values of all controls
    stored = json.loads(re.search(r"pictures = (\[.*\]);", page).group(1))
    assert len(stored) == len(set(stored)) == max(frames) + 1 == len(set(frames))
    assert len({Image.open(io.BytesIO(base64.b64decode(picture))).size for picture in stored}) == 1


def test_a_flipbook_turns_a_checkbox_off_and_on(shown, monkeypatch):
    monkeypatch.setenv(pictures.PAGES, "1")
    explore(lambda wide: line(90 if wide else 10), description="a line", wide=widgets.Checkbox(True))
    (book,) = json.loads(re.search(r"series = (\[.*\]);", shown[0][0]["text/html"]).group(1))
    assert [frame["title"] for frame in book["frames"]] == ["off", "on"]
    assert book["first"] == 1


def test_an_output_has_two_forms_that_show_the_same(shown):
    explore(line, description="a line", number=widgets.IntSlider(50))
    ((forms, metadata, raw),) = shown
    assert raw
    assert forms["image/png"] == picture_of(shown).png == png(line(50))
    assert forms["text/plain"] == picture_of(shown).description == "a line"
    assert metadata["image/png"] == {"width": round(COLUMN * 110), "height": 220, "alt": "a line"}
    assert picture_of(shown).width == pytest.approx(COLUMN * 110)


def test_a_control_that_moves_draws_anew(shown):
    slider = widgets.IntSlider(50)
    explore(line, number=slider)
    slider.value = 80
    assert picture_of(shown).png == png(line(80)) != png(line(50))
    assert shown[0][0]["image/png"] == png(line(50))


def test_a_click_gives_data_coordinates(shown):
    points = []
    explore(
        lambda number, point: points.append(point) or line(number, point), point=(1, 2), number=widgets.IntSlider(50)
    )
    picture = picture_of(shown)
    assert picture.clickable
    picture.point = [0.25 + 0.5 * 0.3, 1 - (0.25 + 0.5 * 0.8)]  # shares of the figure, from the top
    assert points == [(1, 2), pytest.approx((30, 8))]
    assert picture.png == png(line(50, (30, 8)))
    picture.point = [0.1, 0.5]  # outside the axes
    assert len(points) == 2


def test_what_cannot_be_clicked_says_so(shown):
    explore(line, number=widgets.IntSlider(50))
    assert not picture_of(shown).clickable


def test_an_error_is_shown_until_the_next_picture(shown):
    def draw(number):
        if number == 13:
            raise ValueError("thirteen is unlucky")
        return line(number)

    slider = widgets.IntSlider(50)
    explore(draw, number=slider)
    picture = picture_of(shown)
    slider.value = 13
    assert picture.message.endswith("ValueError: thirteen is unlucky\n")
    assert "in draw" in picture.message
    assert picture.png == png(line(50))
    slider.value = 14
    assert picture.message == ""
    assert picture.png == png(line(14))


def test_an_error_of_the_first_drawing_is_the_cells(shown):
    with pytest.raises(ZeroDivisionError):
        explore(lambda number: line(1 / number), number=widgets.IntSlider(0))
    assert shown == []
