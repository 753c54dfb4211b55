// A strip on the page: zoom and pan by mouse, touch and keys, the item under the pointer, selection and search.

class Strip {
  static AXIS = 24;

  constructor(root) {
    this.root = root;
    this.find = (name) => root.querySelector(`.strip-${name}`);
    this.data = new StripData(JSON.parse(this.find("data").textContent));
    this.painter = new StripPainter(this.data, this.data.kinds);
    this.painter.layout();
    this.canvas = this.find("canvas");
    this.axis = this.find("axis");
    this.frame = this.find("frame");
    this.tip = this.find("tip");
    this.state = { selected: -1, found: null, stretch: null, window: this.data.firstWindow };
    this.row = -1;
    for (const name of ["bar", "frame", "keys", "legend"]) this.find(name).hidden = false;
    this.labels();
    this.input = new StripInput(this);
    this.recolour();
    this.resize();
    this.show(this.data.firstWindow);
    this.draw();
  }

  labels() {
    const list = this.find("labels");
    const label = (text, top, kind) => {
      const made = StripWords.element("li", text, kind);
      made.style.top = `${top}px`;
      made.title = text;
      list.append(made);
    };
    this.painter.headings.forEach((top, place) => label(this.data.groups[place], top + 1, "strip-group"));
    this.data.rows.forEach((row, place) => label(row.label, this.painter.tops[place], `strip-${row.of}`));
    list.style.height = `${this.painter.height}px`;
  }

  recolour() {
    this.painter.recolour(this.root);
    const ratio = Math.max(1, devicePixelRatio);
    for (const canvas of this.root.querySelectorAll(".strip-legend canvas")) this.painter.sample(canvas, ratio);
  }

  resize() {
    const ratio = this.ratio || Math.max(1, devicePixelRatio);
    this.width = Math.max(60, Math.floor(this.canvas.getBoundingClientRect().width));
    const sizes = [[this.canvas, this.painter.height], [this.axis, Strip.AXIS]];
    for (const [canvas, height] of sizes) {
      canvas.width = Math.round(this.width * ratio);
      canvas.height = Math.round(height * ratio);
      canvas.style.height = `${height}px`;
      canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
    }
    this.axis.style.marginLeft = `${this.canvas.offsetLeft}px`;
    this.axis.style.width = `${this.width}px`;
  }

  get view() {
    return { low: this.low, high: this.high, width: this.width, scale: this.width / (this.high - this.low) };
  }

  draw() {
    this.painter.paint(this.canvas.getContext("2d"), this.view, this.state);
    this.painter.axis(this.axis.getContext("2d"), this.view, Strip.AXIS);
  }

  // Draws once before the next frame, for any number of changes.
  redraw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.draw();
    });
  }

  // Views

  show(window) {
    this.state.window = window;
    const { start, end } = window < 0 ? { start: this.data.low, end: this.data.high } : this.data.windows[window];
    const margin = Math.max(1, (end - start) * 0.015);
    this.look(start - margin, end + margin);
  }

  look(low, high) {
    const whole = (this.data.high - this.data.low) * 1.06;
    const span = Math.min(Math.max(high - low, Math.min(20, whole)), Math.max(whole, 1));
    const margin = (this.data.high - this.data.low) * 0.03;
    const least = this.data.low - margin;
    const most = Math.max(least, this.data.high + margin - span);
    this.low = Math.min(Math.max(low, least), most);
    this.high = this.low + span;
    this.redraw();
  }

  zoom(factor, time = (this.low + this.high) / 2) {
    this.look(time - (time - this.low) * factor, time + (this.high - time) * factor);
  }

  pan(share) {
    const step = (this.high - this.low) * share;
    this.look(this.low + step, this.high + step);
  }

  timeAt(x) {
    return this.low + (x / this.width) * (this.high - this.low);
  }

  // The selected item's middle if it is in view, else the middle of the view.
  centre() {
    if (this.state.selected >= 0) {
      const { start, end } = this.data.item(this.state.selected);
      if (end >= this.low && start <= this.high) return (Math.max(start, this.low) + Math.min(end, this.high)) / 2;
    }
    return (this.low + this.high) / 2;
  }

  // Items

  hit(event) {
    const box = this.canvas.getBoundingClientRect();
    const row = this.painter.rowAt(event.clientY - box.top);
    if (row < 0) return -1;
    const share = (event.clientY - box.top - this.painter.tops[row]) / StripPainter.heights[this.data.rows[row].of];
    const time = this.timeAt(event.clientX - box.left);
    const reach = (3 * (this.high - this.low)) / this.width;
    const at = this.data.rows[row].near(time, reach);
    return at < 0 ? -1 : this.pick(this.data.rows[row], at, time, reach, share);
  }

  // Among items near the pointer that are thinner than a pixel, a copy in the same half of the row comes first.
  pick(row, at, time, reach, share) {
    const inBand = (place) => {
      const [top, bottom] = StripPainter.bands[this.data.kinds[this.data.kindOf[row.thing[place]]]] || [];
      return top !== undefined && share >= top && share <= bottom;
    };
    if (row.of !== "stream" || row.end[at] - row.start[at] > reach || inBand(at)) return row.first + at;
    for (let place = row.endingAfter(time - reach); place < row.size && row.start[place] <= time + reach; place++) {
      if (inBand(place)) return row.first + place;
    }
    return row.first + at;
  }

  select(number, reveal = false) {
    this.state.selected = number;
    const detail = this.find("detail");
    detail.hidden = number < 0;
    detail.replaceChildren();
    if (number >= 0) {
      const item = this.data.item(number);
      this.row = item.rowPlace;
      detail.append(...StripWords.list(item.name, StripWords.facts(this.data, item)));
      this.find("live").textContent = StripWords.sentence(this.data, item);
      if (reveal) this.reveal(item);
    } else {
      this.find("live").textContent = "";
    }
    this.redraw();
  }

  reveal(item) {
    const span = this.high - this.low;
    if (item.end < this.low || item.start > this.high) {
      const middle = item.start + Math.min(item.end - item.start, span) / 2;
      this.look(middle - span / 2, middle + span / 2);
    }
    const box = this.find("scroll");
    const top = this.painter.tops[item.rowPlace];
    const bottom = top + StripPainter.heights[item.row.of];
    if (top - StripPainter.HEADING < box.scrollTop) box.scrollTop = top - StripPainter.HEADING;
    if (bottom + 4 > box.scrollTop + box.clientHeight) box.scrollTop = bottom + 4 - box.clientHeight;
  }

  // The item before or after the selected one on its row. Without a selection, the first that begins in view on a stream.
  step(by) {
    if (this.state.selected < 0) {
      const row = this.data.rows.find((row) => row.of === "stream" && row.start[row.startingAfter(this.low)] <= this.high);
      return row ? this.select(row.first + row.startingAfter(this.low), true) : this.other(0);
    }
    const item = this.data.item(this.state.selected);
    const at = item.at + by;
    if (at >= 0 && at < item.row.size) this.select(item.row.first + at, true);
  }

  // The nearest item on the next row up or down with items in view.
  other(by) {
    const rows = this.data.rows;
    const time = this.centre();
    for (let row = by ? this.row + by : Math.max(0, this.row); row >= 0 && row < rows.length; row += by || 1) {
      const at = rows[row].near(time, (this.high - this.low) / 2);
      if (at >= 0) return this.select(rows[row].first + at, true);
    }
  }

  zoomTo(number) {
    if (number < 0) return;
    const { start, end } = this.data.item(number);
    const margin = Math.max(10, (end - start) * 0.2);
    this.look(start - margin, end + margin);
  }

  // Measuring

  measure(low, high) {
    this.state.stretch = { low: Math.min(low, high), high: Math.max(low, high) };
    this.redraw();
  }

  // Describes the content of the marked interval. An interval of less than a pixel was a click.
  measured() {
    const { stretch } = this.state;
    if (!stretch || (stretch.high - stretch.low) * this.view.scale < 2) return this.forget();
    const title = `Measured: ${StripWords.time(stretch.high - stretch.low)}`;
    const facts = StripMeasure.facts(this.data, stretch);
    const detail = this.find("detail");
    detail.hidden = false;
    detail.replaceChildren(...StripWords.list(title, facts));
    this.find("live").textContent = `${title}; ${facts.map((pair) => pair.join(" ")).join("; ")}`;
  }

  // By keys: the selected item, extended to each added item. Without a selection, the interval in view.
  extend() {
    const { selected, stretch } = this.state;
    const { start, end } = selected < 0 ? { start: this.low, end: this.high } : this.data.item(selected);
    this.measure(Math.min(start, stretch?.low ?? start), Math.max(end, stretch?.high ?? end));
    this.measured();
  }

  forget() {
    this.state.stretch = null;
    this.select(this.state.selected);
  }

  // Search

  search(text) {
    const wanted = text.trim();
    this.state.found = wanted ? this.data.find(wanted) : null;
    this.turn = -1;
    this.say();
    this.redraw();
  }

  say() {
    const { found } = this.state;
    this.find("matches").hidden = !found || !found.numbers.length;
    if (!found) return void (this.find("found").textContent = "");
    const count = found.numbers.length.toLocaleString("en");
    const place = this.turn >= 0 ? `${(this.turn + 1).toLocaleString("en")} of ` : "";
    const time = found.time ? `, ${StripWords.time(found.time)} on GPUs` : "";
    this.find("found").textContent = `${place}${count} found${time}`;
  }

  next(by) {
    const { found } = this.state;
    if (!found || !found.numbers.length) return;
    if (this.turn < 0) {
      const ahead = found.numbers.findIndex((number) => this.data.item(number).end >= this.low);
      this.turn = by > 0 ? Math.max(0, ahead) : (ahead < 0 ? found.numbers.length : ahead) - 1;
    } else {
      this.turn += by;
    }
    this.turn = (this.turn + found.numbers.length) % found.numbers.length;
    this.say();
    this.select(found.numbers[this.turn], true);
  }

  // Keys

  key(name) {
    const actions = {
      ArrowLeft: () => this.pan(-0.15),
      ArrowRight: () => this.pan(0.15),
      ArrowUp: () => this.other(-1),
      ArrowDown: () => this.other(this.row < 0 ? 0 : 1),
      "+": () => this.zoom(1 / 1.5, this.centre()),
      "=": () => this.zoom(1 / 1.5, this.centre()),
      "-": () => this.zoom(1.5, this.centre()),
      Home: () => this.edge(0),
      End: () => this.edge(1),
      0: () => this.show(this.state.window),
      ",": () => this.step(-1),
      ".": () => this.step(1),
      Enter: () => this.zoomTo(this.state.selected),
      m: () => this.extend(),
      Escape: () => this.leave(),
    };
    if (!Object.hasOwn(actions, name)) return false;
    actions[name]();
    return true;
  }

  edge(end) {
    const span = this.high - this.low;
    const window = this.data.windows[this.state.window];
    const [low, high] = window ? [window.start, window.end] : [this.data.low, this.data.high];
    if (end) this.look(high - span, high);
    else this.look(low, low + span);
  }

  leave() {
    if (!this.tip.hidden) this.tip.hidden = true;
    else if (this.state.stretch) this.forget();
    else this.select(-1);
  }

  // Sizes and paper

  fit() {
    if (Math.floor(this.canvas.getBoundingClientRect().width) === this.width) return;
    this.resize();
    this.draw();
  }

  // On paper: light colours, a width that fits A4, twice the pixels. Drawn at once, as the printer does not wait.
  print(begins) {
    this.root.classList.toggle("strip-paper", begins);
    this.ratio = begins ? 2 : 0;
    this.recolour();
    this.resize();
    this.draw();
  }
}

for (const root of document.querySelectorAll(".strip")) root.strip = new Strip(root);
