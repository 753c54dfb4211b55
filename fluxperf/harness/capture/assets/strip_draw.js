// Draws the part of a strip in view on a canvas. Items thinner than a pixel are shaded by the share of it they cover.

class StripPainter {
  static heights = { ranges: 20, calls: 15, waits: 15, stream: 32, idle: 15 };
  // Copies to the host use the lower half of their row, copies to the device the upper half, not only another colour.
  static bands = { h2d: [0, 0.5], d2h: [0.5, 1], copy: [0.25, 0.75], memset: [0.25, 0.75] };
  static patterns = { h2d: "up", d2h: "down", copy: "dots", memset: "bars", graph: "dots", wait: "cross", order: "dots", late: "up" };
  static arrows = { h2d: "↑ ", d2h: "↓ ", copy: "→ " };
  // Important kinds of items are never drawn in the palest shade.
  static rare = new Set(["h2d", "d2h", "wait"]);
  static HEADING = 24;
  static GAP = 3;

  constructor(data, kinds) {
    this.data = data;
    this.kinds = kinds;
  }

  // The theme's colours, from the style sheet of this element.
  recolour(element) {
    const style = getComputedStyle(element);
    const read = (name) => style.getPropertyValue(`--${name}`).trim();
    this.colours = {};
    for (const name of ["ink", "muted", "line", "paper", "raised", "mark"]) this.colours[name] = read(name);
    this.fills = {};
    this.inks = {};
    for (const kind of this.kinds) {
      this.fills[kind] = read(`strip-${kind}`);
      this.inks[kind] = read(`strip-${kind}-ink`) || this.colours.ink;
    }
    this.font = `11px ${style.fontFamily}`;
    this.hatches = {};
    for (const name of ["up", "down", "cross", "dots", "bars"]) this.hatches[name] = this.tile(name);
  }

  tile(name) {
    const tile = document.createElement("canvas");
    tile.width = tile.height = 8;
    const pen = tile.getContext("2d");
    pen.strokeStyle = pen.fillStyle = this.colours.paper;
    pen.globalAlpha = 0.55;
    pen.lineWidth = 1.6;
    pen.beginPath();
    for (const shift of [-8, 0, 8]) {
      if (name === "up" || name === "cross") pen.moveTo(shift - 1, 9), pen.lineTo(shift + 9, -1);
      if (name === "down" || name === "cross") pen.moveTo(shift - 1, -1), pen.lineTo(shift + 9, 9);
    }
    if (name === "bars") pen.moveTo(2, 0), pen.lineTo(2, 8), pen.moveTo(6, 0), pen.lineTo(6, 8);
    pen.stroke();
    if (name === "dots") pen.fillRect(1, 1, 2, 2), pen.fillRect(5, 5, 2, 2);
    return pen.createPattern(tile, "repeat");
  }

  // Top positions of headings and rows, and the total height.
  layout() {
    this.tops = [];
    this.headings = [];
    let y = 0;
    let group = -1;
    for (const row of this.data.rows) {
      if (row.group !== group) {
        group = row.group;
        y += this.headings.length ? 4 : 0;
        this.headings.push(y);
        y += StripPainter.HEADING;
      }
      this.tops.push(y);
      y += StripPainter.heights[row.of] + StripPainter.GAP;
    }
    this.height = y + 4;
  }

  rowAt(y) {
    return this.tops.findIndex((top, place) => y >= top - 1 && y < top + StripPainter.heights[this.data.rows[place].of] + 2);
  }

  paint(pen, view, state) {
    const { width } = view;
    pen.clearRect(0, 0, width, this.height);
    pen.font = this.font;
    pen.textBaseline = "middle";
    this.grid(pen, view);
    if (this.cover === undefined || this.cover.length !== width * 3 * this.kinds.length) {
      this.cover = new Float32Array(width * 3 * this.kinds.length);
    }
    this.data.rows.forEach((row, place) => this.row(pen, row, this.tops[place], view, state));
    if (state.stretch) this.stretch(pen, view, state.stretch);
    if (state.selected >= 0) this.selection(pen, view, state);
  }

  grid(pen, view) {
    pen.fillStyle = this.colours.line;
    for (const tick of this.ticks(view).times) pen.fillRect(Math.round((tick - view.low) * view.scale), 0, 1, this.height);
    this.headings.forEach((y, place) => place && pen.fillRect(0, y, view.width, 1));
  }

  ticks(view) {
    const wanted = ((view.high - view.low) * (view.width < 500 ? 80 : 110)) / view.width;
    const power = 10 ** Math.floor(Math.log10(Math.max(wanted, 1e-9)));
    const step = Math.max(1, [1, 2, 5, 10].find((factor) => factor * power >= wanted) * power);
    const times = [];
    for (let at = Math.ceil(view.low / step); at * step <= view.high && times.length < 200; at++) times.push(at * step);
    return { step, times };
  }

  axis(pen, view, height) {
    pen.clearRect(0, 0, view.width, height);
    pen.font = this.font;
    pen.textBaseline = "middle";
    pen.fillStyle = this.colours.muted;
    const { step, times } = this.ticks(view);
    const far = Math.max(Math.abs(view.low), Math.abs(view.high));
    const [factor, unit] = StripWords.units.find(([least]) => far >= least) || [1, "ns"];
    const places = Math.max(0, Math.round(Math.log10(factor) - Math.floor(Math.log10(step))));
    for (const time of times) {
      const x = Math.round((time - view.low) * view.scale);
      pen.fillRect(x, height - 5, 1, 5);
      const number = (Math.abs(time) / factor).toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places });
      const text = `${time < 0 ? "−" : ""}${number} ${unit}`;
      const wide = pen.measureText(text).width;
      pen.fillText(text, Math.min(Math.max(1, x - wide / 2), view.width - wide - 2), height / 2 - 3);
    }
  }

  // 0 normal, 1 paler: launched in another step, or not a search result, 2 a search result.
  tone(number, thing, state) {
    if (state.found) return state.found.things[thing] ? 2 : 1;
    const owner = this.data.owner[number];
    return state.window >= 0 && owner >= 0 && owner !== state.window ? 1 : 0;
  }

  row(pen, row, y, view, state) {
    const height = StripPainter.heights[row.of];
    const { low, high, scale, width } = view;
    const last = row.startingAfter(high);
    const kinds = this.kinds.length;
    const touched = new Set();
    for (let at = row.endingAfter(low); at < last || (at < row.size && row.start[at] <= high); at++) {
      const x = (row.start[at] - low) * scale;
      const wide = (row.end[at] - row.start[at]) * scale;
      const thing = row.thing[at];
      const tone = this.tone(row.first + at, thing, state);
      const kind = this.data.kindOf[thing];
      if (wide >= 1.5) {
        this.block(pen, this.kinds[kind], tone, x, wide, y, height, this.data.nameOf[thing], width);
      } else {
        const channel = tone * kinds + kind;
        const pixel = Math.min(width - 1, Math.max(0, Math.floor(x)));
        this.cover[channel * width + pixel] += Math.max(wide, 1e-6);
        touched.add(channel);
      }
    }
    for (const channel of [...touched].sort((a, b) => a - b)) this.thin(pen, channel, y, height, width);
  }

  band(kind, y, height) {
    const [top, bottom] = StripPainter.bands[kind] || [0, 1];
    return [y + top * height, (bottom - top) * height];
  }

  block(pen, kind, tone, x, wide, y, height, name, width) {
    const [top, tall] = this.band(kind, y, height);
    const left = Math.max(x, -4);
    const right = Math.min(x + wide, width + 4) - (wide >= 4 ? 1 : 0);
    pen.globalAlpha = tone === 1 ? 0.3 : 1;
    pen.fillStyle = this.fills[kind];
    if (kind === "idle") {
      pen.strokeStyle = this.fills[kind];
      pen.lineWidth = 1;
      pen.strokeRect(left + 0.5, top + 0.5, Math.max(1, right - left - 1), tall - 1);
    } else {
      pen.fillRect(left, top, right - left, tall);
      const pattern = StripPainter.patterns[kind];
      if (pattern && right - left >= 4) {
        pen.fillStyle = this.hatches[pattern];
        pen.fillRect(left, top, right - left, tall);
      }
    }
    if (tone === 2) {
      pen.strokeStyle = this.colours.ink;
      pen.lineWidth = 2;
      pen.strokeRect(left + 1, top + 1, Math.max(1, right - left - 2), tall - 2);
    }
    if (tone === 1) pen.globalAlpha = 0.75;
    const start = Math.max(left, 0) + 4;
    const room = Math.min(right, width) - start - 3;
    if (name >= 0 && room >= 22) this.name(pen, kind, this.data.texts[name], start, top + tall / 2 + 0.5, room, tall);
    pen.globalAlpha = 1;
  }

  name(pen, kind, name, x, y, room, tall) {
    const text = (StripPainter.arrows[kind] || "") + name;
    const letters = Math.floor(room / 5.9);
    const short = text.length > letters ? text.slice(0, Math.max(1, letters - 1)) + "…" : text;
    if (StripPainter.patterns[kind]) {
      const wide = Math.min(room + 4, pen.measureText(short).width + 4);
      pen.fillStyle = this.fills[kind];
      pen.fillRect(x - 2, y - tall / 2 + 1, wide, tall - 2);
    }
    pen.fillStyle = this.inks[kind];
    pen.fillText(short, x, y, room + 3);
  }

  // Items thinner than a pixel: the shade of a pixel shows how much of it they cover, in four steps.
  thin(pen, channel, y, height, width) {
    const kinds = this.kinds.length;
    const tone = Math.floor(channel / kinds);
    const kind = this.kinds[channel % kinds];
    const [top, tall] = this.band(kind, y, height);
    pen.fillStyle = tone === 2 ? this.colours.ink : this.fills[kind];
    const base = channel * width;
    const least = StripPainter.rare.has(kind) ? 2 : 1;
    let from = 0;
    let level = 0;
    for (let pixel = 0; pixel <= width; pixel++) {
      const covered = pixel < width ? this.cover[base + pixel] : 0;
      const now = covered === 0 ? 0 : Math.min(4, least + Math.floor(covered * 4));
      if (now === level) continue;
      if (level) {
        pen.globalAlpha = (0.25 + 0.1875 * level) * (tone === 1 ? 0.3 : 1);
        pen.fillRect(from, top, pixel - from, tall);
      }
      from = pixel;
      level = now;
    }
    pen.globalAlpha = 1;
    this.cover.fill(0, base, base + width);
  }

  // The outline of the selected item, and lines from a call to the work that it launched.
  selection(pen, view, state) {
    const item = this.data.item(state.selected);
    const [top, tall] = this.band(item.kind, this.tops[item.rowPlace], StripPainter.heights[item.row.of]);
    const left = (item.start - view.low) * view.scale;
    const wide = Math.max(3, (item.end - item.start) * view.scale);
    const x = Math.max(-3, left);
    pen.strokeStyle = this.colours.ink;
    pen.lineWidth = 2;
    pen.strokeRect(x - 1, top - 1, Math.min(view.width + 3, left + wide) - x + 2, tall + 2);
    const pairs = item.call >= 0 ? [[item.call, item.number]] : (this.data.launched.get(item.number) || []).map((number) => [item.number, number]);
    pen.lineWidth = 1.2;
    pen.setLineDash([4, 3]);
    for (const [from, to] of pairs.slice(0, 200)) {
      const call = this.data.item(from);
      const work = this.data.item(to);
      pen.beginPath();
      pen.moveTo((call.start - view.low) * view.scale, this.tops[call.rowPlace] + StripPainter.heights.calls);
      pen.lineTo((work.start - view.low) * view.scale, this.tops[work.rowPlace]);
      pen.stroke();
    }
    pen.setLineDash([]);
  }

  // The measured interval, with its length.
  stretch(pen, view, { low, high }) {
    const left = (low - view.low) * view.scale;
    const right = (high - view.low) * view.scale;
    pen.fillStyle = this.colours.ink;
    pen.globalAlpha = 0.1;
    pen.fillRect(left, 0, right - left, this.height);
    pen.globalAlpha = 1;
    pen.fillRect(left - 1, 0, 2, this.height);
    pen.fillRect(right - 1, 0, 2, this.height);
    const text = StripWords.time(high - low);
    const wide = pen.measureText(text).width + 10;
    const x = Math.min(Math.max(2, (left + right - wide) / 2), view.width - wide - 2);
    pen.fillRect(x, 3, wide, 18);
    pen.fillStyle = this.colours.paper;
    pen.fillText(text, x + 5, 12.5);
  }

  // A sample of a kind, for the legend.
  sample(canvas, ratio) {
    const pen = canvas.getContext("2d");
    canvas.width = 34 * ratio;
    canvas.height = 16 * ratio;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, 34, 16);
    const kind = canvas.dataset.kind;
    if (kind !== "dense") {
      this.block(pen, kind, 0, 1, 33, 0, 16, -1, 34);
      return;
    }
    pen.fillStyle = this.fills.kernel;
    for (let level = 1; level <= 4; level++) {
      pen.globalAlpha = 0.25 + 0.1875 * level;
      pen.fillRect(1 + 8 * (level - 1), 0, 8, 16);
    }
  }
}
