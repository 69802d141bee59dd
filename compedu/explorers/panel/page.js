// A page without a kernel: its JSON stands in for the model, and what was measured answers in place of the kernel.

function pageModel(content) {
  const heard = {};
  const tell = (event, ...news) => (heard[event] ?? []).forEach((action) => action(...news));
  const state = { parts: content.parts, panes: {}, figures: { number: 0, figures: content.figures }, shown: {} };
  let place = content.start, number = 0, predicted = null;
  const figuresAt = (index) => {
    const all = {};
    for (const [name, figure] of Object.entries(content.figures)) {
      const changes = content.places[index].changes[name];
      all[name] = changes ? (changes.whole ?? changed(figure, changes)) : figure;
    }
    if (predicted) all.tradeoff = withPrediction(all.tradeoff, predicted, content.answers);
    return all;
  };
  let serial = 0; // of the newest thing said: whatever it was, it is heard
  const move = (index) => {
    place = index;
    const asking = content.question && !predicted;
    state.shown = { ...content.places[index].shown, heard: serial, question: asking ? content.question : null, message: predicted ? content.surprise : "" };
    if (predicted) state.shown.legend = [...state.shown.legend, ...content.legend];
    state.panes = { "In words": { count: null, html: textOf(state.shown.said) }, ...content.panes };
    number += 1;
    tell("msg:custom", { kind: "all", number, figures: figuresAt(index) });
    tell("change:shown");
    tell("change:panes");
  };
  const commit = (values) => {
    predicted = values;
    content.surprise = surprise(content, values);
    move(place);
  };
  move(recalled(content.parts) ?? place);
  state.figures = { number, figures: figuresAt(place) };
  const send = (said) => {
    serial = said.serial ?? serial;
    if (said.kind === "knob") {
      const index = said.place ?? content.parts.knobs[0].places.findIndex((value) => Number(value) === Number(said.text));
      move(index < 0 ? place : index);
      remember(content.parts, place);
    }
    if (said.kind === "commit") commit(said.values);
  };
  return {
    get: (name) => state[name], send, on: (event, action) => (heard[event] ??= []).push(action),
    off: (event, action) => (heard[event] = (heard[event] ?? []).filter((one) => one !== action)),
  };
}

function textOf(words) {
  return element("p", "", { textContent: words }).outerHTML;
}

function withPrediction(figure, values, answers) {
  const pairs = values.map((value, index) => [answers[index], 100 * value]).filter(([answer]) => answer);
  pairs.sort(([[one]], [[other]]) => one - other);
  const xs = pairs.map(([[at]]) => at);
  const lines = { predicted: pairs.map(([, value]) => value), asked: pairs.map(([[, accuracy]]) => accuracy) };
  const [low, high] = figure.layout.yaxis.range;
  const yaxis = { ...figure.layout.yaxis, range: [Math.min(low, 10 * Math.floor(Math.min(...lines.predicted) / 10)), high] };
  return { layout: { ...figure.layout, yaxis }, data: figure.data.map((trace) => (lines[trace.meta] ? { ...trace, x: xs, y: lines[trace.meta] } : trace)) };
}

function surprise(content, values) {
  if (!content.answers.some(Boolean)) return "";
  const gaps = content.answers.map((answer, index) => (answer ? Math.abs(answer[1] - 100 * values[index]) : -1));
  const most = gaps.indexOf(Math.max(...gaps));
  const words = `Largest surprise: ${content.question.knob} ${content.question.values[most]} gives ${content.answers[most][1].toFixed(1)} %, ` +
    `you said ${(100 * values[most]).toFixed(1)} % (${gaps[most].toFixed(1)} points apart).`;
  return element("div", "compedu-note", { textContent: words }).outerHTML;
}

// The setting stands in the address, so that it can be sent to somebody: #MagnitudePruning.sparsity=0.9
function remember(parts, index) {
  const key = `${parts.name}.${parts.main}`;
  const all = new URLSearchParams(location.hash.slice(1));
  all.set(key, parts.knobs[0].places[index]);
  history.replaceState(null, "", `#${all}`);
}

function recalled(parts) {
  const value = new URLSearchParams(location.hash.slice(1)).get(`${parts.name}.${parts.main}`);
  const index = value === null || !parts.knobs.length ? -1 : parts.knobs[0].places.indexOf(value);
  return index < 0 ? undefined : index;
}

function showPages() {
  for (const box of document.querySelectorAll(".compedu-page")) {
    const content = JSON.parse(box.querySelector("script").textContent);
    content.parts.number = `page-${++page.ids}`;
    const model = pageModel(content);
    initialize({ model });
    box.replaceChildren();
    render({ model, el: box });
  }
}
