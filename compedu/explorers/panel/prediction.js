// Predict before you see: a curve to be dragged, moved by keys, or typed; it hides the answers until it is committed.

const SIZE = { height: 270, left: 52, right: 14, top: 12, bottom: 58 };
const WIDE = 640;
const NARROW = 350; // on the screen of a phone
const SVG = "http://www.w3.org/2000/svg";

function svg(kind, properties, text = "") {
  const made = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(properties)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

function prediction(question, committed) {
  const AREA = { ...SIZE, width: window.innerWidth < 560 ? NARROW : WIDE };
  const start = Math.round(100 * question.dense);
  const values = question.values.map(() => null);
  const x = (place) => AREA.left + 12 + place * (AREA.width - AREA.left - AREA.right - 24);
  const y = (value) => AREA.top + (1 - value / 100) * (AREA.height - AREA.top - AREA.bottom);
  const plot = svg("svg", { viewBox: `0 0 ${AREA.width} ${AREA.height}`, class: "compedu-drawn" });
  frame(plot, x, y, question, AREA);
  const line = plot.appendChild(svg("polyline", { class: "compedu-drawn-line" }));
  const problem = element("p", "compedu-error", { role: "alert", hidden: true });
  const fields = question.values.map((value, index) => {
    const field = element("input", "", {
      type: "number", min: 0, max: 100, step: "any", placeholder: "%", "aria-label": `accuracy in percent at ${question.knob} ${value}`,
    });
    field.addEventListener("input", () => set(index, field.value === "" ? null : Number(field.value), false));
    // Enter goes on, in the end to the button, and never commits by itself: a prediction cannot be taken back.
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault(); // or the same Enter would press the button that it goes to
      (fields[index + 1] ?? commit).focus();
    });
    return field;
  });
  const handles = question.values.map((value, index) => handle(plot, index));

  function set(index, value, write = true) {
    values[index] = value;
    if (write) fields[index].value = value === null ? "" : Math.round(10 * value) / 10;
    draw();
  }
  function handle(plot, index) {
    const name = `${question.knob} ${question.values[index]}`;
    const made = plot.appendChild(svg("g", {
      class: "compedu-handle", tabindex: 0, [OWN_KEYS]: "true", role: "slider", "aria-orientation": "vertical", "aria-label": `accuracy at ${name}`, "aria-valuemin": 0, "aria-valuemax": 100,
    }));
    made.append(svg("circle", { r: 16, class: "compedu-grip" }), svg("circle", { r: 8 }));
    const at = (event) => {
      const box = plot.getBoundingClientRect();
      const share = ((event.clientY - box.top) * AREA.height) / box.height;
      return Math.min(100, Math.max(0, Math.round(100 * (1 - (share - AREA.top) / (AREA.height - AREA.top - AREA.bottom)))));
    };
    made.addEventListener("pointerdown", (event) => {
      made.setPointerCapture(event.pointerId);
      made.focus();
      event.preventDefault();
      set(index, at(event));
    });
    made.addEventListener("pointermove", (event) => made.hasPointerCapture(event.pointerId) && set(index, at(event)));
    made.addEventListener("keydown", (event) => {
      const step = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10, Home: -100, End: 100 }[event.key];
      if (!step) return;
      event.preventDefault();
      event.stopPropagation();
      set(index, Math.min(100, Math.max(0, (values[index] ?? start) + step)));
    });
    return made;
  }
  function draw() {
    const known = values.map((value, index) => [x(question.places[index]), value]).filter(([, value]) => value !== null);
    line.setAttribute("points", known.map(([at, value]) => `${at},${y(value)}`).join(" "));
    handles.forEach((one, index) => {
      const value = values[index] ?? start;
      one.setAttribute("transform", `translate(${x(question.places[index])},${y(Math.min(100, Math.max(0, value)))})`);
      one.classList.toggle("compedu-unset", values[index] === null);
      one.setAttribute("aria-valuenow", Math.round(value));
      one.setAttribute("aria-valuetext", values[index] === null ? "not drawn yet" : `${values[index]} percent`);
    });
  }
  const commit = button("Commit", "fix the prediction and show what is measured", () => {
    const open = values.flatMap((value, index) => (value === null || !(value >= 0 && value <= 100) ? [question.values[index]] : []));
    problem.hidden = open.length === 0;
    problem.textContent = `${question.knob} ${open.join(", ")}: drag the point, or type a number from 0 to 100`;
    if (open.length === 0) committed(values.map((value) => value / 100));
  });
  draw();
  const rows = element("div", "compedu-asked", {}, ...fields.map((field, index) =>
    element("label", "", {}, `${question.values[index]}`, field)));
  const words = element("p", "", {}, element("b", "", { textContent: "Before you look: " }),
    question.words);
  return element("div", "compedu-ask", {}, words, plot, rows, commit, problem);
}

function frame(plot, x, y, question, AREA) {
  for (const value of [0, 25, 50, 75, 100]) {
    plot.append(svg("line", { x1: AREA.left, x2: AREA.width - AREA.right, y1: y(value), y2: y(value), class: "compedu-grid" }));
    plot.append(svg("text", { x: AREA.left - 6, y: y(value) + 4, "text-anchor": "end" }, `${value} %`));
  }
  for (const [value, name, side] of [[question.dense, "dense network", 24], [question.chance, "guessing", -5]]) {
    const at = y(100 * value);
    plot.append(svg("line", { x1: AREA.left, x2: AREA.width - AREA.right, y1: at, y2: at, class: "compedu-known" }));
    plot.append(svg("text", { x: AREA.left + 4, y: at + side }, `${name} ${(100 * value).toFixed(1)} %`));
  }
  let last = -Infinity;
  question.values.forEach((value, index) => {
    const at = x(question.places[index]);
    plot.append(svg("line", { x1: at, x2: at, y1: y(0), y2: y(100), class: "compedu-grid" }));
    const low = at - last < 34; // names of near points stand one below the other
    plot.append(svg("text", { x: at, y: y(0) + (low ? 32 : 17), "text-anchor": "middle" }, value));
    last = low ? -Infinity : at;
  });
  plot.append(svg("text", { x: AREA.width / 2, y: AREA.height - 6, "text-anchor": "middle" }, question.knob));
}
