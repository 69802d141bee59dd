// The library that draws, once a page: pages of a site load it themselves; in a notebook the kernel sends it on request.

const ASK_AGAIN_MS = 5000; // a request is lost with the kernel that it was sent to, or waits while that is busy
// What all explorers of a page share: each widget has a module of its own.
const page = (globalThis.compeduPage ??= { name: nameOfPage(), library: null, waiting: [], models: {}, ids: 0 });

// The name survives a reload, so that the kernel knows the page again.
function nameOfPage() {
  const made = String(Math.random());
  try {
    return (sessionStorage.compeduPage ??= made);
  } catch {
    return made; // some pages may not store anything
  }
}

function library(model) {
  if (globalThis.Plotly?.react) return Promise.resolve(globalThis.Plotly);
  page.library ??= new Promise((done) => (page.arrived = done));
  page.waiting.push(model);
  const receive = async (message, buffers) => {
    if (message.kind !== "library" || page.loading) return;
    page.loading = true;
    try {
      page.arrived(await evaluated(buffers[0]));
      page.waiting = [];
    } catch (error) {
      console.error("compedu: the library that draws could not be loaded", error);
      page.loading = false; // another request may succeed
    }
  };
  model.on("msg:custom", receive);
  page.library.then(() => model.off("msg:custom", receive));
  if (!page.timer) {
    page.timer = setInterval(askNext, ASK_AGAIN_MS);
    askNext();
  }
  return page.library;
}

// Each kernel is asked in turn: one that is busy must not keep the figures of another one waiting.
function askNext() {
  const model = page.waiting.shift();
  if (!model) {
    clearInterval(page.timer);
    page.timer = null;
    return;
  }
  page.waiting.push(model);
  model.send({ kind: "library" });
}

function leave(model) {
  page.waiting = page.waiting.filter((one) => one !== model);
}

async function evaluated(packed) {
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const address = URL.createObjectURL(await new Response(stream).blob().then((b) => b.slice(0, b.size, "text/javascript")));
  await new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = address;
    script.onload = done;
    script.onerror = failed;
    document.head.append(script);
  });
  URL.revokeObjectURL(address);
  return globalThis.Plotly;
}
