// Gauges: marks over one axis, drawn by ourselves, since they follow every move of a slider and a chart library would take
// longer than everything else that happens in between.

const ROOM = { side: 16, line: 22 }; // pixels: left and right of the axis, and above it
const SYMBOLS = { diamond: "M0-6 6 0 0 6-6 0Z", open: "M0-6 6 0 0 6-6 0Z", right: "M7 0-5-6-5 6Z", left: "M-7 0 5-6 5 6Z" };

const MARKS = {
  bar: ({ x: ends, color, height, opacity = 1 }, place) => {
    const [from, to] = ends.map(place), tall = height * ROOM.line;
    return [svg("rect", { x: from, width: to - from, y: (ROOM.line - tall) / 2, height: tall, fill: color, opacity })];
  },
  tick: ({ x: [at], color, width, height = 0.8 }, place) => {
    const tall = height * ROOM.line, top = (ROOM.line - tall) / 2;
    return [svg("line", { x1: place(at), x2: place(at), y1: top, y2: top + tall, stroke: color, "stroke-width": width })];
  },
  dot: ({ x: [at], whisker, color, symbol }, place) => {
    const middle = ROOM.line / 2, [low, high] = whisker.map(place);
    const path = whisker.length ? `M${low} ${middle}H${high}M${low} ${middle - 5}v10M${high} ${middle - 5}v10` : "";
    const look = symbol === "open" ? { fill: "none", stroke: color, "stroke-width": 2 } : { fill: color, stroke: "#FFFFFF" };
    const dot = svg("path", { d: SYMBOLS[symbol], transform: `translate(${place(at)} ${middle})`, ...look });
    return [svg("path", { d: path, stroke: color, "stroke-width": 2, fill: "none" }), dot];
  },
};

// Draws the gauge `figure` into `box`, in place of the one before.
function drawGauge(box, { data, layout }) {
  const { width, height, range: [low, high] } = layout, { side, line } = ROOM;
  const place = (value) => side + ((value - low) / (high - low)) * (width - 2 * side);
  const drawn = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, class: "compedu-marks" });
  for (const mark of data.filter(({ x }) => x.length)) {
    const group = drawn.appendChild(svg("g", {}));
    group.append(svg("title", {}, mark.said), ...MARKS[mark.kind](mark, place));
  }
  drawn.append(svg("line", { x1: side, x2: width - side, y1: line, y2: line, class: "compedu-axis" }));
  for (const [at, text] of layout.ticks) {
    drawn.append(svg("line", { x1: place(at), x2: place(at), y1: line, y2: line + 3, class: "compedu-axis" }));
    drawn.append(svg("text", { x: place(at), y: line + 15, "text-anchor": "middle" }, text));
  }
  box.replaceChildren(drawn);
  box.dataset.marks = data.length;
}

function gaugeDrawer(box, figure) {
  const update = () => drawGauge(box, figure());
  update();
  return { update, close: () => {} };
}
