"""A race in a real Chromium: a bet, two lanes that advance live, Cancel, and the outcome beside the bet."""

import json

import pytest
from explorer_page import RACED
from lab_page import PATIENCE_MS

pytestmark = [pytest.mark.browser, pytest.mark.slow]

DRAWN = """plot => Object.fromEntries(["alone", "taught"].map(name => {
    const steps = plot._fullData?.find(trace => trace.name === name)?.x ?? [];
    return [name, steps.length ? steps[steps.length - 1] : 0];
}))"""
STEPS = "import json\nprint(json.dumps([len(one.losses) for one in (raced.view.race.alone, raced.view.learning)]))"


def test_a_bet_a_race_that_is_cancelled_and_one_that_ends(lab):
    lab.run_cell(RACED)
    shown = lab.cell(RACED).locator(".compedu")
    for name, value in (("alone", "40"), ("taught", "60")):
        shown.get_by_label(f"accuracy in percent at student {name}").fill(value)
    shown.get_by_role("button", name="Commit").click()
    run, cancel = (shown.get_by_role("button", name=name, exact=True) for name in ("Run", "Cancel"))
    run.click()
    plot = shown.locator(".compedu-picture .compedu-plot")
    seen = [{"alone": 0, "taught": 0}]
    for _ in range(3):  # both advance on the page while they train
        ahead = f"([plot, last]) => Object.entries(({DRAWN})(plot)).every(([name, step]) => step > last[name])"
        lab.page.wait_for_function(ahead, arg=[plot.element_handle(), seen[-1]], timeout=PATIENCE_MS)
        seen.append(plot.evaluate(DRAWN))
    assert all(abs(one["alone"] - one["taught"]) < 200 for one in seen) and cancel.is_enabled()
    cancel.click()
    shown.locator(".compedu-badge.CANCELLED").wait_for()
    lab.python("raced.settle(60)")
    stopped = json.loads(lab.python(STEPS))
    lab.page.wait_for_timeout(300)
    assert json.loads(lab.python(STEPS)) == stopped and abs(stopped[0] - stopped[1]) <= 1
    lab.python("raced.set(epochs=2)")
    run.click()
    shown.locator(".compedu-badge.FINAL").wait_for()
    shown.get_by_text("The race ended with").wait_for()
    message = shown.locator(".compedu-message").inner_text()
    ends = json.loads(lab.python(
        "o = raced.view.race.outcome\nprint(json.dumps([100 * o.alone.accuracy, 100 * o.taught.accuracy]))"
    ))  # fmt: skip
    assert "You bet alone 40.0 %, taught 60.0 %: +20.0 points." in message
    assert f"alone {ends[0]:.1f} %, taught {ends[1]:.1f} %" in message
    assert f"taught {ends[1]:.1f} %, alone {ends[0]:.1f} %" in shown.locator(".compedu-caption").inner_text()
    lab.python("raced.close()")
