// The library that draws, once a page: pages of a site load it themselves; in a notebook the kernel sends it on request.

const ASK_AGAIN_MS = 5000; // a request is lost with the kernel that it was sent to
// What all explorers of a page share: each widget has a module of its own.
const page = (globalThis.compeduPage ??= { name: String(Math.random()), library: null, asked: 0, models: {}, ids: 0 });

function library(model) {
  if (globalThis.Plotly?.react) return Promise.resolve(globalThis.Plotly);
  page.library ??= new Promise((done) => (page.arrived = done));
  const ask = () => {
    if (page.loaded) return clearInterval(again);
    if (Date.now() - page.asked < ASK_AGAIN_MS) return;
    page.asked = Date.now();
    model.send({ kind: "library" });
  };
  const again = setInterval(ask, ASK_AGAIN_MS);
  const receive = async (message, buffers) => {
    if (message.kind !== "library" || page.loaded) return;
    page.loaded = true;
    page.arrived(await evaluated(buffers[0]));
  };
  model.on("msg:custom", receive);
  page.library.then(() => {
    clearInterval(again);
    model.off("msg:custom", receive);
  });
  ask();
  return page.library;
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
