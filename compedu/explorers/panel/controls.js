// Knobs as native controls: sliders, fields, lists. What they say goes to the kernel, newest first.

// JupyterLab takes keys, such as arrows that fold headings, from whatever has the focus, unless it says otherwise.
const OWN_KEYS = "data-lm-suppress-shortcuts";
const FOCUSED = new Set(["input", "select", "button", "summary", "textarea"]);

function element(kind, classes = "", properties = {}, ...children) {
  const made = document.createElement(kind);
  if (classes) made.className = classes;
  if (FOCUSED.has(kind)) made.setAttribute(OWN_KEYS, "true");
  for (const [name, value] of Object.entries(properties)) {
    name.includes("-") || name === "role" || name === "for" ? made.setAttribute(name, value) : (made[name] = value);
  }
  made.append(...children);
  return made;
}

// Sends messages with numbers. Of a moving slider only the newest is sent, once the kernel has heard the one before.
function sender(model) {
  const state = { sent: 0, touched: {} };
  let waiting = null;
  const heard = () => model.get("shown").heard ?? 0;
  const post = (content) => {
    state.sent = Math.max(state.sent, heard()) + 1; // other views of this explorer speak to the same kernel
    state.touched[content.name ?? content.kind] = state.sent;
    model.send({ ...content, serial: state.sent });
  };
  state.say = (content) => {
    if (waiting && waiting.name !== content.name) post(waiting);
    waiting = null;
    post(content);
  };
  state.move = (content) => {
    state.touched[content.name] = Infinity;
    if (heard() < state.sent) waiting = content;
    else post(content);
  };
  state.heard = () => {
    if (waiting && heard() >= state.sent) {
      const content = waiting;
      waiting = null;
      post(content);
    }
  };
  state.own = (name) => (state.touched[name] ?? 0) > heard(); // the page knows better than the kernel
  state.sent = heard();
  return state;
}

let gestures = Date.now();

// One knob: `root` to show, `show` to bring it up to the kernel's state.
function control(parts, out, id) {
  const unit = parts.unit ? ` (${parts.unit})` : "";
  const label = element("label", "", { title: parts.help, textContent: parts.label + unit, for: id });
  const field = fieldOf(parts, id);
  field.title = parts.help;
  const written = editing(field, (text) => out.say({ kind: "knob", name: parts.name, text }));
  const row = element("div", "compedu-row");
  const slider = parts.places.length ? sliderOf(parts, out, written) : null;
  if (slider) row.append(slider);
  row.append(field);
  const root = element("div", "compedu-knob", { title: parts.help }, label, row);
  const show = (state) => {
    if (out.own(parts.name)) return;
    written.show(state.text);
    field.setAttribute("aria-invalid", state.refused);
    if (slider) {
      const placed = state.place !== null;
      if (placed) slider.value = state.place;
      slider.classList.toggle("compedu-nowhere", !placed);
      slider.setAttribute("aria-valuetext", placed ? state.text : `${state.text}, not on the slider`);
    }
  };
  return { root, show };
}

// A field that is written into: `done` hears each edit once, when Enter or leaving the field ends it; Escape drops it.
// In an output of JupyterLab, the browser's own `change` does not come on Enter. `show` brings in the kernel's text
// unless the learner is writing, `put` always does. Until the kernel says what the field says, the figures are older.
function editing(field, done) {
  let said = field.value; // by the kernel
  let told = field.value; // to the kernel, or by it
  const mark = () => field.classList.toggle("compedu-unapplied", field.value !== said);
  const apply = () => {
    if (field.value === told) return;
    told = field.value;
    done(told);
  };
  const put = (text) => {
    field.value = text;
    said = told = field.value; // of a list without such a choice, none
    mark();
  };
  const show = (text) => {
    if (field.value === told) return put(text);
    said = told = text;
    mark();
  };
  field.addEventListener("input", mark);
  for (const leaving of ["change", "blur"]) field.addEventListener(leaving, apply);
  field.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "Enter") apply();
    if (event.key === "Escape" && field.value !== told) field.value = told;
    mark();
  });
  return { show, put };
}

function fieldOf(parts, id) {
  if (parts.kind === "text") {
    return element("input", parts.wide ? "compedu-wide" : "", { id, type: "text", spellcheck: false, autocomplete: "off" });
  }
  return element("select", "", { id }, ...parts.choices.map((choice) => new Option(choice, choice)));
}

function sliderOf(parts, out, written) {
  const slider = element("input", "", {
    type: "range", min: 0, max: parts.places.length - 1, step: 1, "aria-label": parts.label, title: parts.help,
  });
  let gesture = null;
  const turn = () => {
    gesture ??= ++gestures;
    slider.classList.remove("compedu-nowhere");
    written.put(parts.places[slider.value]);
    slider.setAttribute("aria-valuetext", parts.places[slider.value]);
    out.move({ kind: "knob", name: parts.name, place: Number(slider.value), gesture });
  };
  slider.addEventListener("input", turn);
  slider.addEventListener("change", () => (gesture = null));
  slider.addEventListener("click", () => { // of the place where it was last, the browser tells no change
    if (slider.classList.contains("compedu-nowhere")) turn();
    gesture = null;
  });
  return slider;
}

function chooser(label, options, id, chosen) {
  const pairs = Array.isArray(options) ? options.map((one) => [one, one]) : Object.entries(options);
  const only = pairs.length === 1;
  const field = element("select", "", { id, disabled: only }, ...pairs.map(([value, name]) => new Option(name, value)));
  field.addEventListener("change", () => chosen(field.value));
  const root = element("div", "compedu-knob", {}, element("label", "", { textContent: label, for: id }), field);
  return { root, show: (value) => (field.value = value) };
}

function button(text, title, action) {
  const made = element("button", "compedu-button", { type: "button", textContent: text, title });
  made.addEventListener("click", () => action(made));
  return made;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = document.body.appendChild(element("textarea", "", { value: text })); // no clipboard without https
    field.select();
    document.execCommand("copy");
    field.remove();
  }
}

function save(text, name) {
  const link = element("a", "", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
