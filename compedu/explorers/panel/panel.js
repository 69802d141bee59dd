// The explorer on the page: texts, controls and figures from one state; what is touched is said to the kernel.

const JUST_RUN_MS = 8000;
const REST_MS = 3000; // how long a learner rests before a picture is kept

// What belongs to a model and not to one of its views; a widget is known by its number, since each view has a proxy.
function initialize({ model }) {
  const { number } = model.get("parts");
  page.models[number] = { store: received(model), views: 0 };
  return () => delete page.models[number];
}

function render({ model, el }) {
  const parts = model.get("parts");
  const id = `compedu-${++page.ids}`;
  const known = page.models[parts.number];
  const store = known.store;
  const out = sender(model);
  const at = layout(parts, model, out, id);
  el.classList.add("compedu-live");
  el.append(at.root);
  const lib = library(model);
  const drawers = Object.fromEntries(Object.entries(at.boxes).map(([name, box]) => {
    const figure = () => store.figures[name];
    return [name, name in parts.gauges ? gaugeDrawer(box, figure) : drawer(box, lib, figure, name === "tradeoff")];
  }));
  const tell = (names) => names.forEach((name) => drawers[name]?.update());
  store.told.add(tell);
  const still = parts.still ? { due: () => {}, close: () => {} } : stills(model, lib, store); // a page keeps none
  const shown = () => {
    out.heard();
    at.show(model.get("shown"));
    still.due(model.get("shown"));
  };
  const panes = () => at.fill(model.get("panes"));
  const answer = (message) => message.kind === "file" && save(message.text, message.name);
  const heard = [["change:shown", shown], ["change:panes", panes], ["msg:custom", answer]];
  for (const [event, action] of heard) model.on(event, action);
  shown();
  panes();
  comeIntoView(el, model.get("shown").displayed);
  model.send({ kind: "views", page: page.name, count: ++known.views });
  return () => {
    for (const [event, action] of heard) model.off(event, action);
    store.told.delete(tell);
    still.close();
    Object.values(drawers).forEach((one) => one.close());
    leave(model);
    model.send({ kind: "views", page: page.name, count: --known.views });
  };
}

// A cell that was just run shows its explorer; a page that is opened stays where it is.
function comeIntoView(el, displayed) {
  if (Math.abs(Date.now() - displayed) > JUST_RUN_MS) return;
  requestAnimationFrame(() => el.scrollIntoView({ block: "nearest" }));
}

// Everything on the page, empty: `show` and `fill` bring in the state.
function layout(parts, model, out, id) {
  const code = element("input", "compedu-code", {
    type: "text", spellcheck: false, autocomplete: "off", readOnly: Boolean(parts.still),
    "aria-label": "the method as code", title: `the method as code: ${parts.still ? "" : "change it, or "}copy it`,
  });
  const line = editing(code, (text) => out.say({ kind: "code", text }));
  const badge = element("span", "compedu-badge", { role: "status" });
  const copied = button("Copy", "copy the method as code", async (pressed) => {
    await copy(model.get("shown").code);
    pressed.textContent = "Copied";
    setTimeout(() => (pressed.textContent = "Copy"), 1500);
  });
  const file = button("CSV", "save all measured points of this explorer as a file", () => out.say({ kind: "file" }));
  const top = element("div", "compedu-top", {}, code, ...(parts.still ? [copied] : [copied, file]), badge);
  const message = element("div", "compedu-message");
  const ask = element("div");
  const knobs = Object.fromEntries(parts.knobs.map((one) => [one.name, control(one, out, `${id}-${one.name}`)]));
  const left = side(parts, knobs, out, id);
  const gauges = Object.fromEntries(Object.entries(parts.gauges).map(([name, title]) => [name, gauge(title)]));
  const picture = panelOf("picture");
  const tradeoff = panelOf("tradeoff");
  const axes = chooser("accuracy against", parts.sideways, `${id}-sideways`, (name) => out.say({ kind: "sideways", name }));
  axes.root.classList.add("compedu-axes");
  tradeoff.root.prepend(axes.root);
  const legend = element("p", "compedu-legend");
  tradeoff.root.append(legend);
  const main = element("div", "compedu-main", {}, ...(parts.main && knobs[parts.main] ? [knobs[parts.main].root] : []));
  const right = element("div", "compedu-right", {},
    element("div", "compedu-gauges", {}, ...Object.values(gauges).map((one) => one.root)), main,
    element("div", "compedu-plots", {}, ...(parts.pictures.length ? [picture.root] : []), tradeoff.root));
  const tabs = tablist(parts.tabs, id);
  const body = element("div", "compedu-body", {}, left.root, right);
  const kind = parts.still ? "compedu compedu-alone" : "compedu";
  const root = element("div", kind, { role: "group", "aria-label": "explorer" }, top, message, ask, body, tabs.root);
  const boxes = { tradeoff: tradeoff.box, ...(parts.pictures.length ? { picture: picture.box } : {}) };
  for (const [name, one] of Object.entries(gauges)) boxes[name] = one.box;
  let asked = null;
  const show = (state) => {
    if (!out.own("code")) line.show(state.typed ?? state.code);
    if (badge.textContent !== state.badge) badge.textContent = state.badge;
    badge.title = state.why;
    badge.className = `compedu-badge ${state.state}`;
    root.className = `${kind} compedu-${state.state}`;
    put_html(message, state.message);
    for (const [name, one] of Object.entries(state.knobs)) knobs[name]?.show(one);
    left.show(state);
    for (const [name, lines] of Object.entries(state.gauges)) gauges[name].show(lines);
    legend.replaceChildren(...state.legend.map(([mark, color, name]) => element("span", "", {},
      element("i", "", { textContent: mark, style: `color:${color}` }), ` ${name}`)));
    picture.show(state.caption, state.heading);
    axes.show(state.sideways);
    tradeoff.box.setAttribute("aria-label", state.said);
    picture.box.setAttribute("aria-label", state.caption);
    const hidden = Boolean(state.question);
    if (hidden !== (asked !== null)) {
      asked = hidden ? prediction(state.question, (values) => out.say({ kind: "commit", values })) : null;
      ask.replaceChildren(...(asked ? [asked] : []));
      for (const part of [body, tabs.root, top, message]) part.hidden = hidden;
      if (!hidden) main.querySelector("input")?.focus({ preventScroll: true }); // Commit, which had the focus, is gone
    }
  };
  return { root, boxes, show, fill: tabs.fill };
}

const written = new WeakMap();

// Replaces the content where the text differs from the last one: focus, and what was folded out, stay otherwise.
function put_html(node, text) {
  if (written.get(node) === text) return;
  written.set(node, text);
  node.innerHTML = text;
}

// The left column: knobs, those below More, the choices of picture and layer, buttons.
function side(parts, knobs, out, id) {
  const front = element("div", "compedu-front");
  const rest = element("details", "compedu-more", {}, element("summary", "", { textContent: "More knobs", title: "the other knobs of this method" }));
  const buttons = Object.fromEntries(Object.entries(parts.buttons).map(([name, tip]) => [name, button(name, tip, () => out.say({ kind: "press", name }))]));
  const progress = element("progress", "compedu-progress", { "aria-label": "training steps" });
  const running = element("div", "compedu-buttons", {}, ...["Run", "Cancel"].flatMap((name) => buttons[name] ?? []), progress);
  const keep = element("div", "compedu-buttons", {}, ...["Reset", "Pin"].flatMap((name) => buttons[name] ?? []));
  const picture = chooser("picture", parts.pictures, `${id}-picture`, (name) => out.say({ kind: "picture", name }));
  const layer = chooser("layer in the picture", parts.layers, `${id}-layer`, (name) => out.say({ kind: "layer", name }));
  const which = [...(parts.pictures.length > 1 ? [picture.root] : []), ...(parts.layers.length > 1 ? [layer.root] : [])];
  const about = element("div", "compedu-about");
  const root = element("div", "compedu-left", {}, front, running, keep, ...which, rest, about);
  const show = (state) => {
    const names = parts.knobs.map((one) => one.name).filter((name) => name !== parts.main);
    const first = names.filter((name) => state.front.includes(name));
    const others = names.filter((name) => !state.front.includes(name));
    if (front.dataset.names !== first.join()) {
      front.dataset.names = first.join();
      front.replaceChildren(...first.map((name) => knobs[name].root));
      rest.replaceChildren(rest.firstChild, ...others.map((name) => knobs[name].root));
    }
    rest.hidden = others.length === 0;
    running.hidden = !state.trains;
    for (const [name, one] of Object.entries(buttons)) one.disabled = !state.buttons[name];
    progress.hidden = state.progress === null;
    if (state.progress) [progress.value, progress.max] = state.progress;
    picture.show(state.picture);
    layer.show(state.layer);
    put_html(about, state.about);
  };
  return { root, show };
}

function gauge(title) {
  const headline = element("b");
  const lines = element("div", "compedu-lines");
  const box = element("div", "compedu-plot", { "aria-hidden": "true" });
  const root = element("div", "compedu-gauge", {}, element("div", "", {}, headline, element("span", "", { textContent: ` ${title}` })), box, lines);
  const show = ([first, ...others]) => {
    headline.textContent = first;
    headline.className = /^[0-9≈…]/.test(first) ? "" : "compedu-words";
    lines.replaceChildren(...others.map((text) => element("div", "", { textContent: text })));
  };
  return { root, box, show };
}

function panelOf(name) {
  const caption = element("div", "compedu-caption");
  const heading = element("div", "compedu-heading");
  const box = element("div", "compedu-plot", { role: "img" });
  const root = element("div", `compedu-${name}`, {}, ...(name === "picture" ? [caption, heading] : []), box);
  const show = (text, colors) => {
    caption.textContent = text;
    put_html(heading, colors);
  };
  return { root, box, show };
}

// Tabs as the ARIA practices have them: arrows move, the panel is named by its tab.
function tablist(names, id) {
  const list = element("div", "compedu-tabs", { role: "tablist" });
  const pane = element("div", "compedu-pane", { role: "tabpanel", tabIndex: 0, [OWN_KEYS]: "true", id: `${id}-pane` });
  const tabs = Object.entries(names).map(([name, tip], index) =>
    element("button", "", { type: "button", role: "tab", title: tip, textContent: name, id: `${id}-tab-${index}`, "aria-controls": `${id}-pane` }));
  let chosen = 0, texts = {};
  const show = () => {
    tabs.forEach((tab, index) => {
      tab.setAttribute("aria-selected", index === chosen);
      tab.tabIndex = index === chosen ? 0 : -1;
    });
    const name = Object.keys(names)[chosen];
    pane.setAttribute("aria-labelledby", tabs[chosen].id);
    pane.classList.toggle("compedu-tall", chosen > 1);
    pane.innerHTML = texts[name]?.html ?? "";
  };
  tabs.forEach((tab, index) => {
    tab.addEventListener("click", () => {
      chosen = index;
      show();
    });
    tab.addEventListener("keydown", (event) => {
      const to = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: -1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      chosen = (to + tabs.length) % tabs.length;
      show();
      tabs[chosen].focus();
    });
  });
  list.append(...tabs);
  const fill = (panes) => {
    texts = panes;
    Object.keys(names).forEach((name, index) => {
      const count = panes[name]?.count ?? null;
      tabs[index].textContent = count === null ? name : `${name} (${count})`;
    });
    show();
  };
  const root = element("div", "compedu-tabbed", {}, ...(tabs.length ? [list, pane] : []));
  return { root, fill };
}

// A picture of what is seen, for the notebook to keep: taken once a measurement is complete and the learner rests.
function stills(model, lib, store) {
  let timer = null, last = "";
  const take = async (state) => {
    const Plotly = await lib;
    const images = [];
    for (const name of ["picture", "tradeoff"]) {
      const { data, layout } = structuredClone(store.figures[name]);
      const { width, height } = layout;
      images.push({ name, width, height, url: await Plotly.toImage({ data, layout }, { format: "png", scale: 1.5, width, height }) });
    }
    last = `${state.code} ${state.picture} ${state.layer}`;
    model.send({ kind: "still", images, code: state.code });
  };
  const due = (state) => {
    clearTimeout(timer);
    if (state.state !== "FINAL" || state.question || `${state.code} ${state.picture} ${state.layer}` === last) return;
    timer = setTimeout(() => take(state), REST_MS);
  };
  return { due, close: () => clearTimeout(timer) };
}
