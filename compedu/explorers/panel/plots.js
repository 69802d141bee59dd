// The figures of one model, brought up to date by numbered changes, and their drawing where they can be seen.

const CONFIG = { displayModeBar: false, displaylogo: false, responsive: false };
const NEAR = "400px"; // how far outside of the window figures are drawn already

// All views of a model share what was received: `figures` by name, and whom to tell of a change.
function received(model) {
  const first = model.get("figures");
  const state = { number: first.number, figures: first.figures, told: new Set() };
  const replace = (all) => {
    state.number = all.number;
    state.figures = all.figures;
    state.told.forEach((tell) => tell(Object.keys(state.figures)));
  };
  model.on("msg:custom", (message) => {
    if (message.kind === "all") return replace(message);
    if (message.kind !== "changes" || message.number <= state.number) return;
    if (message.number !== state.number + 1) return state.ask();
    state.number = message.number;
    for (const [name, changes] of Object.entries(message.figures)) {
      state.figures[name] = changes.whole ?? changed(state.figures[name], changes);
    }
    state.told.forEach((tell) => tell(Object.keys(message.figures)));
  });
  state.ask = () => model.send({ kind: "have", number: state.number });
  state.ask(); // what was drawn between the beginning of this state and the first message that is heard
  return state;
}

function changed(figure, { data = {}, layout = {} }) {
  return {
    data: figure.data.map((trace, index) => merged(trace, data[index])),
    layout: merged(figure.layout, layout),
  };
}

function merged(old, changes) {
  if (!changes) return old;
  const made = { ...old, ...changes };
  for (const name of Object.keys(changes)) if (changes[name] === null) delete made[name];
  return made;
}

// Draws one figure into `box` whenever it has changed and can be seen. One drawing at a time: the newest figure wins.
// With `fits`, it is as wide as the box, now and whenever that changes.
function drawer(box, lib, figure, fits) {
  let due = true, busy = false, seen = false, closed = false;
  const draw = async () => {
    if (busy || closed || !seen || !due) return;
    busy = true;
    try {
      const Plotly = await lib;
      await drawDue(Plotly);
    } finally {
      busy = false; // a figure that could not be drawn does not keep the next one from being drawn
    }
  };
  const drawDue = async (Plotly) => {
    while (due && seen && !closed) {
      due = false;
      const { data, layout } = figure();
      await put(Plotly, box, { data, layout: fits ? { ...layout, width: box.clientWidth || layout.width } : layout });
    }
  };
  const watch = new IntersectionObserver((entries) => {
    seen = entries.at(-1).isIntersecting;
    draw();
  }, { rootMargin: NEAR });
  watch.observe(box);
  const update = () => {
    due = true;
    draw();
  };
  const widths = new ResizeObserver(() => box.clientWidth !== box._fullLayout?.width && update());
  if (fits) widths.observe(box);
  return {
    update,
    close: async () => {
      closed = true;
      watch.disconnect();
      widths.disconnect();
      if (box.querySelector(".main-svg")) (await lib).purge(box);
    },
  };
}

async function put(Plotly, box, { data, layout }) {
  // Copies: the library writes into what it is given, and compares it with what it was given before.
  const given = () => [data.map((trace) => ({ ...trace })), { ...layout }];
  await Plotly.react(box, ...given(), CONFIG);
  if (!box.isConnected) return;
  if (!box.querySelector(".main-svg") || box._fullData?.length !== data.length) {
    Plotly.purge(box);
    await Plotly.newPlot(box, ...given(), CONFIG);
  }
}
