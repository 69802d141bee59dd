// What only the page itself can do: names for screen readers, the clipboard, a file to save, word of its first drawing.

function name_controls(root) {
  for (const knob of root.querySelectorAll(".compedu-knob")) {
    const label = knob.querySelector(".widget-html-content label")?.textContent; // before it is an empty one of ipywidgets
    for (const field of knob.querySelectorAll(".noUi-handle, input, select")) field.setAttribute("aria-label", label);
    for (const handle of knob.querySelectorAll(".noUi-handle")) {
      const shown = knob.querySelector("input")?.value;
      if (shown !== undefined) handle.setAttribute("aria-valuetext", shown);
    }
  }
}

function explain_tabs(root, tips) {
  for (const tab of root.querySelectorAll(".lm-TabBar-tab")) {
    const name = tab.querySelector(".lm-TabBar-tabLabel")?.textContent.replace(/ \(.*/, ""); // "Newly wrong (12)"
    if (tips[name]) tab.title = tips[name];
  }
}

function name_figure(root, said) {
  for (const figure of root.querySelectorAll(".js-plotly-plot")) {
    figure.setAttribute("role", "img");
    figure.setAttribute("aria-label", said);
  }
}

function save(text, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = document.body.appendChild(document.createElement("textarea")); // pages without https have no clipboard
    field.value = text;
    field.select();
    document.execCommand("copy");
    field.remove();
  }
}

function button(el, text, title, action) {
  const made = el.appendChild(document.createElement("button"));
  made.type = "button";
  made.className = "jupyter-button compedu-button";
  made.textContent = text;
  made.title = title;
  made.addEventListener("click", () => action(made));
}

function render({ model, el }) {
  let root = null;
  let drawn = null; // the figure that was drawn last: another picture is another figure
  let asked = false;
  const look = () => {
    asked = false;
    name_controls(root);
    explain_tabs(root, model.get("tips"));
    name_figure(root, model.get("said"));
    const figure = root.querySelector(".js-plotly-plot .main-svg")?.closest(".js-plotly-plot");
    if (figure && figure !== drawn) {
      drawn = figure;
      model.send({ kind: "drawn" });
    }
  };
  const soon = () => {
    if (!asked) asked = requestAnimationFrame(look);
  };
  const observer = new MutationObserver(soon);
  const attach = () => {
    root = el.closest(".compedu");
    if (!root) return requestAnimationFrame(attach);
    observer.observe(root, { childList: true, subtree: true });
    soon();
  };
  attach();
  const answer = (message) => message.kind === "csv" && save(message.text, message.name);
  model.on("change:said", soon);
  model.on("msg:custom", answer);
  button(el, "Copy", "copy the method as code", async (made) => {
    await copy(model.get("code"));
    made.textContent = "Copied";
    setTimeout(() => (made.textContent = "Copy"), 1500);
  });
  button(el, "CSV", "save all measured points of this explorer as a file", () => model.send({ kind: "csv" }));
  return () => {
    observer.disconnect();
    model.off("change:said", soon);
    model.off("msg:custom", answer);
  };
}

export default { render };
