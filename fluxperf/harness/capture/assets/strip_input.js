// Maps mouse, touch and keys to the actions of a strip, which are in strip.js.

class StripInput {
  constructor(strip) {
    this.strip = strip;
    this.pointers = new Map();
    this.listen();
  }

  listen() {
    const { canvas } = this.strip;
    canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (this.strip.key(event.key)) event.preventDefault();
    });
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("dblclick", (event) => this.strip.zoomTo(this.strip.hit(event)));
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.release(event));
    canvas.addEventListener("pointercancel", (event) => this.pointers.delete(event.pointerId));
    canvas.addEventListener("pointerleave", () => (this.strip.tip.hidden = true));
    this.strip.find("choice").addEventListener("change", (event) => {
      this.strip.show(Number(event.target.value));
      canvas.setAttribute("aria-label", `Timeline of ${event.target.selectedOptions[0].textContent}`);
    });
    const box = this.strip.find("search");
    box.addEventListener("input", () => this.strip.search(box.value));
    box.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.strip.next(event.shiftKey ? -1 : 1);
    });
    for (const button of this.strip.root.querySelectorAll("button[data-key]")) {
      const jumps = { Enter: 1, "Shift+Enter": -1 };
      const { key } = button.dataset;
      button.addEventListener("click", () => (key in jumps ? this.strip.next(jumps[key]) : this.strip.key(key)));
    }
    new ResizeObserver(() => this.strip.fit()).observe(this.strip.frame);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.strip.recolour();
      this.strip.redraw();
    });
    addEventListener("beforeprint", () => this.strip.print(true));
    addEventListener("afterprint", () => this.strip.print(false));
  }

  wheel(event) {
    const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY);
    const zooms = !sideways && !event.shiftKey && (event.ctrlKey || event.metaKey || document.activeElement === this.strip.canvas);
    if (!zooms && !sideways && !event.shiftKey) return;
    event.preventDefault();
    const pixels = (sideways ? event.deltaX : event.deltaY) * (event.deltaMode === 1 ? 24 : 1);
    if (!zooms) return this.strip.pan(pixels / this.strip.width);
    const box = this.strip.canvas.getBoundingClientRect();
    this.strip.zoom(1.0018 ** Math.max(-400, Math.min(400, pixels)), this.strip.timeAt(event.clientX - box.left));
  }

  press(event) {
    if (event.button > 0) return;
    this.strip.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, event);
    this.moved = this.pointers.size > 1;
    this.from = event.shiftKey ? this.strip.timeAt(event.clientX - this.strip.canvas.getBoundingClientRect().left) : null;
    this.strip.tip.hidden = true;
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return this.hover(event);
    const others = [...this.pointers.values()].filter((one) => one.pointerId !== event.pointerId);
    if (others.length) {
      const left = this.strip.canvas.getBoundingClientRect().left;
      const far = (one) => Math.max(8, Math.abs(one.clientX - others[0].clientX));
      this.strip.zoom(far(before) / far(event), this.strip.timeAt((event.clientX + others[0].clientX) / 2 - left));
    } else {
      if (!this.moved && Math.abs(event.clientX - before.clientX) < 4) return;
      if (this.from !== null) this.strip.measure(this.from, this.strip.timeAt(event.clientX - this.strip.canvas.getBoundingClientRect().left));
      else this.strip.pan((before.clientX - event.clientX) / this.strip.width);
    }
    this.moved = true;
    this.pointers.set(event.pointerId, event);
  }

  release(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    if (this.moved && this.from !== null) this.strip.measured();
    else if (!this.moved && !this.pointers.size) this.strip.select(this.strip.hit(event));
  }

  hover(event) {
    const number = this.strip.hit(event);
    this.strip.tip.hidden = number < 0;
    this.strip.canvas.style.cursor = number < 0 ? "grab" : "pointer";
    if (number < 0) return;
    this.strip.tip.replaceChildren(...StripWords.tip(this.strip.data, this.strip.data.item(number)));
    const box = this.strip.frame.getBoundingClientRect();
    const x = event.clientX - box.left;
    const y = event.clientY - box.top;
    const { offsetWidth: wide, offsetHeight: tall } = this.strip.tip;
    const left = Math.max(0, Math.min(x + 14, box.width - wide - 2));
    const below = event.clientY + tall + 24 < innerHeight;
    this.strip.tip.style.transform = `translate(${left}px, ${below ? y + 18 : y - tall - 12}px)`;
  }
}
