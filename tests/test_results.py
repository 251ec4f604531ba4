"""All numbers in the README, docs/ and the model card come from the records."""

import re
import shlex

import numpy as np
import pytest
from results import (
    CARD,
    END,
    README,
    RESULTS,
    RUNS,
    START,
    packaged_record,
    pages,
    replaced,
    short_table,
    single_records,
    speed_tables,
)
from scipy import stats

from spinet.cli import configure
from spinet.config import PRESETS, to_dict
from spinet.config.baselines import TITLES
from spinet.config.stored import from_dict
from spinet.experiments.campaigns import find_campaigns
from spinet.experiments.tables import INTEGRATION, LEVELS, LOSSES, RATES, SYSTEMS, TABLES
from spinet.files import read_json
from spinet.options import parse
from spinet.records import find_records
from spinet.report import report
from spinet.report.curves import curves
from spinet.report.effects import effects
from spinet.report.power import pairs_needed, precision
from spinet.report.single import is_single, results_rows, results_table, system
from spinet.report.verdicts import LEVEL, verdicts

RECORDS = single_records()
PAGES = pages()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_is_current(path):
    assert path.read_text(encoding="utf-8") == PAGES[path], "run: make docs"


def test_the_tables_are_current(tmp_path):
    root = next(iter(PAGES)).parent
    report([root / "figures" / "runs"], tmp_path)
    written = (root / "figures" / "tables.md").read_text()
    assert (tmp_path / "tables.md").read_text() == written, "run: make figures"


def test_a_table_holds_every_record_once():
    table, short = results_table(RECORDS).markdown(), short_table(RECORDS).markdown()
    assert packaged_record("") in RECORDS
    assert table.count("| its semantic output + connected components |") == len(RECORDS)
    assert len(short.splitlines()) == 2 + len(RECORDS)
    for record in RECORDS:
        for name in ("PQ", "PQ_components"):
            assert f"| {record['metrics'][name]:.1f} |" in table
            assert f"| {record['metrics'][name]:.1f} |" in short


def test_the_readme_has_the_runs_of_spinet_alone():
    assert {system(record) for record in RECORDS} == {"spinet", "condinst"}
    ours = short_table(record for record in RECORDS if system(record) == "spinet").markdown()
    assert ours in PAGES[README]


def test_docs_results_says_how_condinst_compares_with_the_main_job():
    city = {system(record): record for record in RECORDS if record["data"]["name"] == "synthcity"}
    ours, condinst = city["spinet"], city["condinst"]
    for same in ("data", "seed", "backbone_weights"):
        assert ours[same] == condinst[same]
    assert condinst["metrics"]["PQ"] > ours["metrics"]["PQ"]
    assert condinst["metrics"]["PQ_th"] > ours["metrics"]["PQ_th"]
    assert 0 < ours["metrics"]["PQ_st"] - condinst["metrics"]["PQ_st"] < 1
    small, large = ([run["metrics"]["sizes"][size] for run in (condinst, ours)] for size in ("16", "64"))
    assert [round(size["found"] / size["number"], 1) for size in small] == [0.5, 0.3]
    assert all(size["found"] > 0.95 * size["number"] for size in large)


def commands(page):
    """The commands `spinet train` on a page, as parsed options."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = [shlex.split(line) for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [parse(words[1:]) for words in lines if words[:2] == ["spinet", "train"]]


def settings(config):
    """All settings but the number of workers, which changes no result."""
    values = to_dict(config)
    del values["input"]["workers"]
    return values


def test_the_commands_of_docs_results_have_the_settings_of_the_records():
    data = [record["data"]["name"] for record in RECORDS]
    assert {options["data"].name for options in commands(RESULTS)} == {*data} - {"city"}
    for options in commands(RESULTS):
        fields = {name: value for name, value in options.items() if "." in name}
        start = {name: options[name] for name in ("system", "init", "base")}
        config, _ = configure(options["preset"], **start, fields=fields)
        same = [record for record in RECORDS if settings(from_dict(record["config"])) == settings(config)]
        assert options["data"].name in [record["data"]["name"] for record in same]


def test_only_what_stands_between_the_marks_is_replaced():
    assert replaced(f"a{START}old{END}b", "new\n") == f"a{START}\n\nnew\n\n{END}b"


def test_a_run_that_is_not_finished_has_no_row():
    assert not is_single({**RECORDS[0], "status": "running", "metrics": {}})


def test_a_row_names_its_system():
    baseline = {**RECORDS[0], "config": to_dict(PRESETS["tiny"].with_system("condinst"))}
    assert [row[1] for row in results_rows([RECORDS[0], baseline])][::2] == ["SPINet", "CondInst + semantic branch"]


def test_times_stand_under_their_conditions():
    row = {
        "system": "spinet",
        "optimized": True,
        "precision": "bf16",
        "instances": 40,
        "found": 40,
        "network_s": 1.5,
        "post_s": 0.2,
    }
    row |= {
        "total_s": 1.7,
        "total_quartiles": [1.6, 1.9],
        "total_ratio": 1.0,
        "floor_macs_s": 1.2,
        "floor_bytes_s": 0.1,
    }
    row |= {"params": 42e6, "macs": 8e11, "peak_memory": None}
    record = {
        "rows": [row],
        "device": {"name": "a chip"},
        "size": [8, 16],
        "preset": "tiny",
        "threads": 2,
        "repeats": 3,
    }
    table = speed_tables([record])
    assert table.startswith("8 × 16 px, preset `tiny`, a chip, 2 threads, medians of 3 rounds:\n\n| system |")
    assert "| spinet | bf16 | 40 | 40 | 1500 | 200 | 1700 | 1600-1900 | 1 | 1200 | 42 | 800 | – |" in table
    assert speed_tables([]) == ""


def campaign(name):
    """The campaign of docs/experiments.md in this folder of figures/runs."""
    (found,) = find_campaigns(find_records(RUNS / name).values())
    return found


def differences(runs, better, other, name="PQ", seeds=5):
    """Better − other for each seed, of rows by their names."""
    a, b = (runs[row.title] for row in (better, other))
    assert len(a) == len(b) == seeds
    return np.array([a[seed]["metrics"][name] - b[seed]["metrics"][name] for seed in a])


NONE, DICE, CONTOUR, TASKS, FULL = LOSSES.rows


def gains_of_phi(runs, name):
    """How much both tasks raise a measure of the Panoptic-Feature, for each seed."""
    with_tasks, without = (runs[row.title] for row in (FULL, DICE))
    return np.array(
        [with_tasks[seed]["metrics"]["features"][name] - without[seed]["metrics"]["features"][name] for seed in without]
    )


def test_docs_experiments_says_what_the_records_of_synthcity_say():
    city, short = campaign("synthcity-400"), campaign("synthcity-400-short-warmup")
    losses, features = city.rows(LOSSES), city.rows(INTEGRATION)
    before = short.rows(LOSSES)
    held = [verdict.claim for verdict in verdicts(city) if verdict.words == "holds here"]
    assert [(claim.better, claim.other) for claim in held] == [(DICE, NONE), (FULL, TASKS)]
    assert all(verdict.p >= LEVEL for verdict in verdicts(city) if verdict.claim not in held)
    assert all(verdict.p >= LEVEL for verdict in verdicts(short))
    for better, other in ((DICE, NONE), (FULL, TASKS)):
        gain = differences(losses, better, other)
        assert (gain > 0).all()
        assert gain.mean() > better.paper.pq - other.paper.pq
        assert differences(losses, better, other, "PQ_st").mean() > differences(losses, better, other, "PQ_th").mean()
        assert (differences(before, better, other) > 0).all()
    assert (differences(before, CONTOUR, DICE) < 0).all()
    assert (differences(losses, CONTOUR, DICE) > 0).any()
    assert (differences(features, *INTEGRATION.rows, "PQ_st") > 0).all()
    rises = effects([(losses[DICE.title][s]["metrics"], losses[NONE.title][s]["metrics"]) for s in losses[DICE.title]])
    stuff = [one["name"] for one in losses[DICE.title][0]["metrics"]["per_class"].values() if not one["isthing"]]
    assert {*sorted(stuff, key=lambda name: -np.mean(rises[name]))[:2]} == {"sidewalk", "traffic sign"}
    assert (gains_of_phi(losses, "silhouette_classes") > 0).all()
    assert (gains_of_phi(losses, "border_f") > 0).all()
    assert not (gains_of_phi(losses, "silhouette_instances") > 0).all()
    assert np.mean([r["metrics"]["PQ"] for r in losses[FULL.title].values()]) > max(
        r["metrics"]["PQ"] for r in before[FULL.title].values()
    )
    assert precision(city).spread < precision(short).spread
    classes = [
        {one["name"]: 100 * one["pq"] for one in r["metrics"]["per_class"].values()}
        for r in losses[FULL.title].values()
    ]
    rare = [sum(of[name] for name in ("truck", "bus", "train")) / len(of) for of in classes]
    whole = [np.mean([*of.values()]) for of in classes]
    assert np.var(np.subtract(whole, rare)) < 0.5 * np.var(whole)
    found = precision(city)
    assert found.difference < found.spread
    assert found.difference_images < found.difference / 2


def test_docs_experiments_says_what_the_records_of_dsb2018_say():
    nuclei = campaign("dsb2018-300")
    losses = nuclei.rows(LOSSES)
    words = {verdict.claim.statement: verdict.words for verdict in verdicts(nuclei)}
    assert [statement for statement, word in words.items() if not word.startswith("cannot")] == [
        "Both auxiliary tasks together raise PQ (§4)"
    ]
    assert words["Both auxiliary tasks together raise PQ (§4)"] == "fails here"
    assert (differences(losses, FULL, DICE) < 0).all()
    assert (differences(losses, CONTOUR, DICE) < 0).all()
    assert gains_of_phi(losses, "silhouette_instances").mean() < 0
    here, there = precision(nuclei), precision(campaign("synthcity-400"))
    assert here.spread < there.spread
    assert here.images > 5 * here.difference_images


def test_docs_experiments_says_what_the_records_of_coco_street_say():
    street = campaign("coco_street-300")
    losses, features = street.rows(LOSSES), street.rows(INTEGRATION)
    judged = verdicts(street)
    assert len(judged) == 6
    assert all(verdict.words.startswith("cannot be judged") for verdict in judged)
    alone, with_tasks = (differences(losses, *rows, seeds=3) for rows in ((DICE, NONE), (FULL, TASKS)))
    assert (alone > 0).all()
    assert (with_tasks > 0).sum() == 2
    for gain, better, other in ((alone, DICE, NONE), (with_tasks, FULL, TASKS)):
        assert abs(gain.mean() - (better.paper.pq - other.paper.pq)) < 0.5
    assert abs(differences(losses, FULL, DICE, seeds=3)).max() < 1
    for name in ("silhouette_classes", "border_f"):
        assert (gains_of_phi(losses, name) > 0).all()
    assert not (gains_of_phi(losses, "silhouette_instances") > 0).all()
    separate, integrated = INTEGRATION.rows
    assert (differences(features, integrated, separate, seeds=3) > 0).sum() == 2
    fresh = features[separate.title][0]["init"]["fresh"]
    assert any(name.startswith("stuff_feature.") for name in fresh)


def found(records, size):
    """The number of things of a size that the runs found, on average."""
    return np.mean([record["metrics"]["sizes"][str(size)]["found"] for record in records.values()])


def paired_differences(better, other, name="PQ"):
    """Better − other for each seed that both have."""
    seeds = sorted(better.keys() & other.keys())
    return np.array([better[seed]["metrics"][name] - other[seed]["metrics"][name] for seed in seeds])


@pytest.mark.parametrize("name", ["synthcity-400", "synthcity-400-short-warmup"])
def test_docs_experiments_says_what_the_records_of_table_1_say(name):
    city = campaign(name)
    assert not city.untried()
    systems = city.rows(SYSTEMS)
    ours, fpn, condinst = (systems[title] for title in ("SPINet", TITLES["panoptic_fpn"], TITLES["condinst"]))
    assert min(len(fpn), len(condinst)) == 3
    assert all((paired_differences(condinst, ours, quality) > 0).all() for quality in ("PQ", "PQ_th"))
    assert stats.ttest_1samp(paired_differences(condinst, ours), 0).pvalue < LEVEL
    assert stats.ttest_1samp(paired_differences(fpn, ours), 0).pvalue > LEVEL
    plain = systems["SPINet, without parts beyond the paper"]
    means = (np.mean([r["metrics"]["PQ"] for r in runs.values()]) for runs in (fpn, condinst))
    assert max(r["metrics"]["PQ"] for r in plain.values()) < min(means)
    assert min(found(fpn, 16), found(condinst, 16)) > 2 * found(ours, 16) > 0
    assert max(found(r, 64) for r in (ours, fpn, condinst)) < 1.15 * min(found(r, 64) for r in (ours, fpn, condinst))


def test_docs_experiments_says_what_the_records_of_upsnet_say():
    systems = campaign("synthcity-400").rows(SYSTEMS)
    ours, fpn, condinst, upsnet = (systems[TITLES[name]] for name in ("spinet", "panoptic_fpn", "condinst", "upsnet"))
    assert len(upsnet) == 3
    for better, other in ((upsnet, ours), (upsnet, fpn), (condinst, upsnet)):
        gain = paired_differences(better, other)
        assert (gain > 0).all()
        assert stats.ttest_1samp(gain, 0).pvalue > LEVEL
    assert 2.8 < found(upsnet, 16) / found(ours, 16) < 3.4


def test_docs_experiments_says_what_the_records_of_panoptic_deeplab_say():
    systems = campaign("synthcity-400").rows(SYSTEMS)
    theirs = [record["metrics"] for record in systems[TITLES["panoptic_deeplab"]].values()]
    assert len(theirs) == 3
    mean = np.mean([one["PQ"] for one in theirs])
    others = [
        [r["metrics"] for r in runs.values()]
        for title, runs in systems.items()
        if runs and title != TITLES["panoptic_deeplab"]
    ]
    assert all(0.4 < mean / np.mean([one["PQ"] for one in runs]) < 0.6 for runs in others)
    assert max(one["PQ_st"] for one in theirs) < min(one["PQ_st"] for runs in others for one in runs)
    assert found(systems[TITLES["panoptic_deeplab"]], 16) > found(systems[TITLES["spinet"]], 16)

    hardest, every = campaign("synthcity-400").rows(TABLES["deeplab"]).values()
    assert len(hardest) == len(every) == 3
    assert (paired_differences(every, hardest, "PQ_st") > 10).all()
    assert stats.ttest_1samp(paired_differences(every, hardest, "PQ_th"), 0).pvalue > LEVEL
    for seed, record in every.items():
        gains = {
            here["name"]: here["pq"] - there["pq"]
            for here, there in zip(*(r["metrics"]["per_class"].values() for r in (record, hardest[seed])), strict=True)
        }
        assert {*sorted(gains, key=lambda name: -gains[name])[:2]} == {"building", "vegetation"}
    gap = max(r["metrics"]["PQ_st"] for runs in systems.values() for r in runs.values()) - np.mean(
        [r["metrics"]["PQ_st"] for r in hardest.values()]
    )
    assert paired_differences(every, hardest, "PQ_st").mean() > gap / 2


def test_docs_experiments_says_what_the_records_of_table_1_on_dsb2018_say():
    nuclei = campaign("dsb2018-300")
    assert not nuclei.untried()
    systems = nuclei.rows(SYSTEMS)
    ours = systems["SPINet"]
    upsnet, fpn, deeplab, condinst = (
        systems[TITLES[name]] for name in ("upsnet", "panoptic_fpn", "panoptic_deeplab", "condinst")
    )
    plain = systems["SPINet, without parts beyond the paper"]
    assert [len(runs) for runs in (upsnet, fpn, deeplab, condinst, plain)] == [1, 3, 3, 3, 1]
    for runs in (upsnet, fpn, condinst):
        assert (paired_differences(runs, ours) > 0).all()
        assert (paired_differences(runs, ours, "PQ_th") > 0).all()
        assert abs(paired_differences(runs, ours, "PQ_st")).max() < 2
    assert min(r["metrics"]["PQ"] for runs in (upsnet, fpn) for r in runs.values()) > 77.5
    assert (paired_differences(fpn, condinst) > 0).all()
    *stable, lost = sorted(deeplab.values(), key=lambda record: -record["metrics"]["PQ"])
    assert lost["metrics"]["PQ_th"] < 0.1
    slower = nuclei.rows(RATES)[f"{TITLES['panoptic_deeplab']}, rate × 3"]
    assert len(slower) == 3
    assert 0 < systems[TITLES["panoptic_deeplab"]][0]["metrics"]["PQ"] - slower[0]["metrics"]["PQ"] < 0.1
    best = min(record["metrics"]["PQ"] for runs in (upsnet, fpn) for record in runs.values())
    for record in (*stable, *slower.values()):
        assert max(r["metrics"]["PQ"] for r in condinst.values()) < record["metrics"]["PQ"] < best

    absolute = nuclei.rows(TABLES["condinst"])["CondInst, absolute coordinates"]
    assert len(absolute) == 3
    assert (
        max(r["metrics"]["PQ_th"] for r in absolute.values())
        < 6
        < 50
        < min(r["metrics"]["PQ_th"] for r in condinst.values())
    )
    assert abs(paired_differences(absolute, condinst, "PQ_st")).max() < 0.5
    skipless = nuclei.rows(TABLES["learning"])["no coordinates at the end of both paths"]
    things = [np.mean([r["metrics"]["PQ_th"] for r in runs.values()]) for runs in (plain, skipless, ours)]
    assert [round(mean) for mean in things] == [11, 20, 48]
    small = [found(runs, 8) for runs in (fpn, upsnet, slower, ours, condinst)]
    assert min(small[:3]) > 1.2 * small[3] > 1.2 * small[4]


def test_docs_experiments_says_what_the_records_of_table_4_say():
    city = campaign("synthcity-400")
    high, mixed, low = city.rows(LEVELS).values()
    assert [len(runs) for runs in (high, mixed, low)] == [3, 3, 3]
    assert all(stats.ttest_1samp(paired_differences(row, high), 0).pvalue > LEVEL for row in (mixed, low))
    published = [row.paper.pq for row in LEVELS.rows]
    assert published[0] == published[1] < published[2]
    judged = [verdict for verdict in verdicts(city) if verdict.claim.table is LEVELS]
    assert all(verdict.findable > published[2] - published[0] for verdict in judged)


def test_docs_experiments_says_what_the_records_of_deformable_convolutions_say():
    ((plain,), (deformable,)) = (
        runs.values() for runs in campaign("synthcity-400-resnet10t").rows(TABLES["deformable"]).values()
    )
    alike = campaign("synthcity-400-short-warmup").rows(TABLES["learning"])["resnet10t from scratch, group norm"]
    scores = [record["metrics"]["PQ"] for record in alike.values()]
    assert len(scores) == 3
    assert 0 < deformable["metrics"]["PQ"] - plain["metrics"]["PQ"] < max(scores) - min(scores)
    assert deformable["hours"] > 3 * plain["hours"]


def test_docs_experiments_says_what_the_curves_say():
    rows = campaign("synthcity-800").rows(RATES)
    titles = [f"{TITLES[name]}, rate × {rate}" for name, rate in (("spinet", 1), ("condinst", 3), ("panoptic_fpn", 3))]
    ours, condinst, fpn = (curves(rows)[title] for title in titles)
    assert [*ours] == [*condinst] == [200, 400, 600, 800]
    assert all(len(scores) == 3 for scores in ours.values())
    assert all(condinst[done][0] > max(ours[done] + fpn.get(done, [])) for done in ours)
    assert [*fpn] == [200, 600, 800]
    assert all(abs(fpn[done][0] - np.mean(ours[done])) < 1.5 for done in fpn)
    things = [min(record["metrics"]["PQ_th"] for record in rows[title].values()) for title in titles]
    assert things[0] > things[2]


def test_docs_experiments_says_what_longer_runs_would_find():
    short, middle, long = (precision(campaign(f"synthcity-{length}")) for length in (400, 800, 1600))
    assert [found.runs for found in (short, middle, long)] == [5, 3, 3]
    assert 10.5 < long.mean - short.mean < 11.5
    assert long.spread < min(short.spread, middle.spread)
    assert (pairs_needed(short.assumed), pairs_needed(long.assumed)) == (9, 3)
    hours = [2 * pairs_needed(found.assumed) * found.hours for found in (short, long)]
    assert 0.5 < hours[0] / hours[1] < 2
    low, high = (np.sqrt(2 / stats.chi2.ppf(share, 2)) for share in (0.975, 0.025))
    assert (round(low, 1), round(high)) == (0.5, 6)


def test_docs_experiments_says_what_the_records_of_condinst_say():
    city = campaign("synthcity-400")
    parts, ours = city.rows(TABLES["condinst"]), city.rows(LOSSES)[FULL.title]
    whole, absolute = parts["CondInst"], parts["CondInst, absolute coordinates"]
    assert len(absolute) == len(whole) == 3
    ahead, lost = paired_differences(whole, ours, "PQ_th"), paired_differences(whole, absolute, "PQ_th")
    assert (lost > 0).all()
    assert lost.mean() > ahead.mean() > 0
    assert abs(paired_differences(whole, absolute, "PQ_st")).max() < 1
    assert found(whole, 16) - found(absolute, 16) > (found(whole, 16) - found(ours, 16)) / 2 > 0
    assert found(whole, 16) / found(absolute, 16) > 1.2 * found(whole, 32) / found(absolute, 32)
    skipless = city.rows(TABLES["learning"])["no coordinates at the end of both paths"]
    assert 0.25 < found(skipless, 16) / found(ours, 16) < 0.4
    assert (
        stats.ttest_1samp(paired_differences(city.rows(SYSTEMS)[TITLES["condinst"]], ours, "PQ_st"), 0).pvalue < LEVEL
    )

    detailed = city.rows(TABLES["learning"])["C2 added to φ"]
    assert len(detailed) == 3
    assert (paired_differences(detailed, ours, "PQ_st") > 4).all()
    assert (paired_differences(detailed, city.rows(SYSTEMS)[TITLES["condinst"]], "PQ_st") > 0).all()


def test_docs_experiments_says_what_the_records_of_integration_say():
    city = campaign("synthcity-400")
    parts, ours = city.rows(TABLES["condinst"]), city.rows(LOSSES)[FULL.title]
    few, some, many = (parts[f"CondInst, integrated on {n} channels"] for n in (8, 64, 256))
    for rows in (few, some, many):
        lost = {name: paired_differences(parts["CondInst"], rows, name).mean() for name in ("PQ_th", "PQ_st")}
        assert lost["PQ_st"] > lost["PQ_th"] > 0
        (metrics,) = (record["metrics"] for record in rows.values())
        classes = zip(*(m["per_class"].values() for m in (metrics, parts["CondInst"][0]["metrics"])), strict=True)
        none_left = {here["name"] for here, there in classes if here["pq"] == 0 < there["pq"]}
        assert none_left >= {"wall", "fence", "terrain", "traffic sign"}
        assert found(rows, 16) > 2 * found(ours, 16)
    assert 0 < paired_differences(many, few, "PQ_st").mean() < 3


def test_docs_experiments_says_what_the_records_of_learning_say():
    learning = campaign("synthcity-400-short-warmup").rows(TABLES["learning"])
    recipe = learning["the recipe"]

    def paired(title, name="PQ", start=recipe, rows=learning):
        runs = rows[title]
        return [runs[seed]["metrics"][name] - start[seed]["metrics"][name] for seed in runs]

    longer = "100 iterations of warm-up, the backbone at the full rate"
    slower = "100 iterations of warm-up, the backbone at 0.3 of the rate"
    assert len(learning[longer]) == len(learning[slower]) == 3
    assert min(paired(longer)) > 0
    assert min(paired(slower, start=learning[longer])) > 0
    for name in ("dsb2018-300", "coco_street-300"):
        rows = campaign(name).rows(TABLES["learning"])
        for title in (longer, slower):
            found = stats.ttest_1samp(paired(title, start=rows["the recipe"], rows=rows), 0)
            assert found.statistic < 0 or found.pvalue > LEVEL

    assert np.mean(paired("equal share of the filters for each instance", "PQ_th")) < 0
    slow = "fully connected layer at 1/24 of the rate"
    assert max(paired(slow)) < 0
    noise = (
        "two more waves, the longest of 4096 pixels",
        "32 groups in group norm",
        "all stages of the backbone trained",
    )
    for title in (*noise, slow):
        assert len(paired(title)) == 3
        assert stats.ttest_1samp(paired(title), 0).pvalue > LEVEL
    small, large = (
        np.mean([run["metrics"]["PQ"] for run in learning[f"{name} from scratch, group norm"].values()])
        for name in ("resnet10t", "resnet18")
    )
    assert large < small < 0.6 * np.mean([run["metrics"]["PQ"] for run in recipe.values()])
    failed, other = sorted(
        (run["metrics"] for run in learning["no coordinates at the end of both paths"].values()), key=lambda m: m["PQ"]
    )
    assert failed["PQ"] < 0.1
    assert failed["PQ_components"] >= other["PQ_components"]

    present = campaign("synthcity-400").rows(TABLES["learning"])
    recipe = present["the recipe"]
    for title in ("no coordinates at the end of both paths", "λ_2 as in the paper"):
        assert len(present[title]) == 3
        assert max(paired(title, start=recipe, rows=present)) < 0
        assert max(paired(title, "PQ_th", start=recipe, rows=present)) < 0
    assert max(paired("PyTorch's initialisation of the deconvolution", start=recipe, rows=present)) < 0
    gains = {name: paired("C2 added to φ", name, recipe, present) for name in ("PQ", "PQ_th", "PQ_st")}
    assert min(gains["PQ"]) > 0
    assert np.mean(gains["PQ_st"]) > np.mean(gains["PQ_th"])
    for title in (
        "λ_4 from the start",
        "a location belongs to the smallest instance in its cell",
        "cross entropy from all pixels to the hardest fifth",
    ):
        assert len(present[title]) == 3
        assert stats.ttest_1samp(paired(title, start=recipe, rows=present), 0).pvalue > LEVEL
    plain = paired("all", start=recipe, rows=campaign("synthcity-400").rows(TABLES["cross-entropy"]))
    assert len(plain) == 3
    assert max(plain) < 0
    assert stats.ttest_1samp(plain, 0).pvalue > LEVEL
    skipless = {
        name: np.mean(paired("no coordinates at the end of both paths", name, recipe, present))
        for name in ("PQ_th", "PQ_st")
    }
    assert skipless["PQ_th"] < 2 * skipless["PQ_st"] < 0


def test_docs_experiments_says_what_the_records_of_learning_on_dsb2018_say():
    learning = campaign("dsb2018-300").rows(TABLES["learning"])
    recipe = learning["the recipe"]
    assert (paired_differences(recipe, learning["no coordinates at the end of both paths"], "PQ_th") > 25).all()
    for title in ("PyTorch's initialisation of the deconvolution", "λ_2 as in the paper", "λ_4 from the start"):
        differences = paired_differences(learning[title], recipe)
        assert len(differences) == 3
        assert stats.ttest_1samp(differences, 0).pvalue > LEVEL


def test_the_model_card_says_what_photos_of_another_city_change():
    before, after = (
        {one["name"]: 100 * one["pq"] for one in read_json(CARD.parent / name)["per_class"].values()}
        for name in ("kitti.json", "kitti_camvid.json")
    )
    assert min(after[name] - before[name] for name in ("road", "sky")) > 10
    assert after["car"] <= before["car"]
