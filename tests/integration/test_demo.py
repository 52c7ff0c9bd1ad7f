"""The demo's story on a small part of the year: it comes out right, and it fails where a node holds something else."""

from pathlib import Path

import pytest

from edgekv.cli.demo import DemoFailed, Story
from edgekv.cli.demo_cluster import DemoCluster
from edgekv.cli.demo_screen import Screen
from edgekv.cli.demo_weather import rows

PART = rows()[::10]


def test_the_story_comes_out_right_over_a_cut_and_a_kill(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with DemoCluster(tmp_path) as cluster:
        story = Story(cluster, Screen(), PART)
        story.first_act()
        story.second_act()
        story.third_act(kill_at=0.5)
        story.tell_figures()
    told = capsys.readouterr().out
    assert "of its readings were acknowledged; ready again after" in told
    assert told.count("at each of 4 nodes, all equal to the file, and no others") == 3


def test_the_story_fails_where_a_node_holds_something_else(tmp_path: Path) -> None:
    """Somebody else has counted in the cloud: nothing that the demo can have computed."""
    with DemoCluster(tmp_path) as cluster:
        story = Story(cluster, Screen(), PART)
        story.first_act()
        cluster.sites["cloud"].ask(b"INCRBY", b"hours/2013-01-02", b"1")
        with pytest.raises(DemoFailed, match=r"1 keys differ; hours/2013-01-02 should be .* and is"):
            story.second_act()
