// The explorer's page. All text is set as text, never as HTML: it comes from a stream.

function make(tag, attributes = {}, ...inner) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...inner.filter((x) => x)); // `condition && element` leaves what is not there out
  return node;
}

function tell(list, facts) {
  list.replaceChildren(...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  return list;
}

const number = (n) => n.toLocaleString("en-US");

// Asks the kernel; an answer comes by its number. A page without a kernel gets none, and says so.
class Kernel {
  constructor(model, say) {
    this.model = model;
    this.say = say;
    this.prefix = Math.random().toString(36).slice(2);
    this.count = 0;
    this.waiting = new Map();
    this.hear = (message) => this.receive(message);
    model.on("msg:custom", this.hear);
  }
  ask(message) {
    const from = `${this.prefix}.${this.count++}`;
    return new Promise((resolve) => {
      const late = setTimeout(
        () => this.say("No answer from the kernel: it is busy, or gone. If it is gone, run this cell again."),
        5000
      );
      this.waiting.set(from, (answer) => {
        clearTimeout(late);
        this.say(answer.error || "");
        resolve(answer);
      });
      this.model.send({ from, ...message });
    });
  }
  receive(message) {
    const answer = this.waiting.get(message.to);
    this.waiting.delete(message.to);
    if (answer) answer(message);
  }
  close() {
    this.model.off("msg:custom", this.hear);
  }
}

// An ARIA tree: one row can be reached by Tab, the arrow keys move on from there.
class Tree {
  constructor(rows, two, kernel, chosen) {
    this.kernel = kernel;
    this.chosen = chosen;
    this.two = two;
    this.rows = new Map();
    this.element = make("div", { role: "tree", class: "vx-tree", "aria-label": "Sections and fields" });
    this.element.addEventListener("keydown", (event) => this.key(event));
    this.fill(this.element, rows, 1);
    this.focus(this.element.firstChild, false);
  }

  fill(group, rows, level) {
    group.replaceChildren(...rows.map((row) => this.item(row, level)));
  }

  item(row, level) {
    const differences = row.differences || 0;
    const mark = row.only ? `only ${row.only}` : differences ? `${number(differences)} ≠` : "";
    const line = make(
      "div",
      { class: "vx-row" },
      make("span", { class: "vx-twisty", "aria-hidden": "true" }),
      make("span", { class: `vx-label vx-${row.kind}` }, row.label),
      mark && make("span", { class: "vx-mark" }, mark),
      make("span", { class: "vx-note" }, row.note || "")
    );
    const element = make(
      "div",
      { role: "treeitem", tabindex: "-1", "aria-level": level, "aria-selected": "false", "data-same": !mark && this.two },
      line
    );
    if (row.inner) element.setAttribute("aria-expanded", "false");
    line.addEventListener("click", (event) => {
      if (event.target.classList.contains("vx-twisty")) this.toggle(element);
      else if (element === this.current && row.inner) this.toggle(element);
      this.choose(element);
    });
    element.data = row;
    this.rows.set(row.row, element);
    return element;
  }

  level(element) {
    return Number(element.getAttribute("aria-level"));
  }

  isOpen(element) {
    return element.getAttribute("aria-expanded") === "true";
  }

  put(element, rows) {
    if (element.group) return;
    element.group = make("div", { role: "group" });
    this.fill(element.group, rows, this.level(element) + 1);
    element.append(element.group);
  }

  async open(element) {
    if (!element.group) {
      element.setAttribute("aria-busy", "true");
      const answer = await this.kernel.ask({ do: "open", row: element.data.row });
      element.removeAttribute("aria-busy");
      if (answer.error) return;
      this.put(element, answer.rows);
    }
    element.group.hidden = false;
    element.setAttribute("aria-expanded", "true");
  }

  toggle(element) {
    if (!element.hasAttribute("aria-expanded")) return;
    if (this.isOpen(element)) {
      element.group.hidden = true;
      element.setAttribute("aria-expanded", "false");
    } else this.open(element);
  }

  focus(element, really = true) {
    if (!element) return;
    this.tabbable?.setAttribute("tabindex", "-1");
    this.tabbable = element;
    element.setAttribute("tabindex", "0");
    if (really) element.focus({ preventScroll: true });
    if (really) this.show(element);
  }

  // Scrolls the tree, never the page.
  show(element) {
    const box = this.element.getBoundingClientRect();
    const row = element.firstChild.getBoundingClientRect();
    if (row.top < box.top) this.element.scrollTop -= box.top - row.top;
    else if (row.bottom > box.bottom) this.element.scrollTop += row.bottom - box.bottom;
  }

  mark(element) {
    this.current?.setAttribute("aria-selected", "false");
    this.current = element;
    element.setAttribute("aria-selected", "true");
  }

  choose(element) {
    this.focus(element);
    this.mark(element);
    this.chosen(element.data);
  }

  // Opens the way to a row that the kernel names, level by level.
  reveal(shown, really) {
    for (const step of shown.way) {
      const element = this.rows.get(step.row);
      this.put(element, step.rows);
      element.group.hidden = false;
      element.setAttribute("aria-expanded", "true");
    }
    const element = this.rows.get(shown.row);
    this.mark(element);
    this.focus(element, really);
    requestAnimationFrame(() => {
      this.show(element);
      this.element.scrollTop += element.getBoundingClientRect().top - this.element.getBoundingClientRect().top - 80;
    });
  }

  visible() {
    return [...this.element.querySelectorAll('[role="treeitem"]')].filter((e) => e.firstChild.offsetParent !== null);
  }

  key(event) {
    const at = this.tabbable;
    if (!at || event.altKey || event.ctrlKey || event.metaKey) return;
    const all = this.visible();
    const step = (n) => this.choose(all[Math.min(Math.max(n, 0), all.length - 1)]);
    const i = all.indexOf(at);
    if (event.key === "ArrowDown") step(i + 1);
    else if (event.key === "ArrowUp") step(i - 1);
    else if (event.key === "PageDown") step(i + 15);
    else if (event.key === "PageUp") step(i - 15);
    else if (event.key === "Home") step(0);
    else if (event.key === "End") step(all.length - 1);
    else if (event.key === "ArrowRight") {
      if (this.isOpen(at)) step(i + 1);
      else if (at.hasAttribute("aria-expanded")) this.open(at);
    } else if (event.key === "ArrowLeft") {
      const above = at.parentElement.closest('[role="treeitem"]');
      if (this.isOpen(at)) this.toggle(at);
      else if (above) this.choose(above);
    } else if (event.key === "Enter" || event.key === " ") {
      this.toggle(at);
      this.choose(at);
    } else if (event.key.length === 1) {
      const letter = event.key.toLowerCase();
      const next = [...all.slice(i + 1), ...all.slice(0, i)].find((e) => e.data.label.toLowerCase().startsWith(letter));
      if (next) this.choose(next);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

// Bytes in rows: address, hex, text. Those of what was chosen are marked, a click chooses what stands there.
class Hex {
  constructor(name, side, width, kernel, at, moved) {
    Object.assign(this, { side, width, kernel, at, moved });
    this.body = make("div", { class: "vx-hex", tabindex: "0", role: "group", "aria-label": `Bytes of ${name}` });
    this.place = make("span", { class: "vx-place" });
    const button = (label, text, pages) =>
      make("button", { type: "button", title: label, "aria-label": label, onclick: () => this.turn(pages) }, text);
    this.element = make(
      "div",
      { class: "vx-side" },
      make("div", { class: "vx-bar" }, button("Bytes before", "▲", -1), button("Bytes behind", "▼", 1), this.place),
      this.body
    );
    this.body.addEventListener("keydown", (event) => {
      const pages = { PageDown: 1, PageUp: -1 }[event.key];
      if (!pages) return;
      event.preventDefault();
      event.stopPropagation();
      this.turn(pages);
    });
    this.body.addEventListener("click", (event) => {
      const byte = event.target.closest("[data-at]");
      if (byte) this.at(this.side, Number(byte.dataset.at));
    });
  }

  async turn(pages) {
    if (!this.window) return;
    const step = this.window.data.length / 2 - 2 * this.width;
    const answer = await this.kernel.ask({ do: "bytes", side: this.side, start: this.window.start + pages * step });
    if (answer.error) return;
    this.window = answer.bytes;
    this.moved();
  }

  draw(other) {
    if (!this.window) {
      this.place.textContent = "not in this stream";
      this.body.replaceChildren();
      return;
    }
    const { start, data, end } = this.window;
    const bytes = data.match(/../g) || [];
    const theirs = other?.window ? other.window.data.match(/../g) || [] : null;
    const apart = theirs && start - this.offset === other.window.start - other.offset;
    this.place.textContent = `${number(start)} … ${number(start + bytes.length - 1)} of ${number(end)}`;
    const lines = [];
    for (let i = 0; i < bytes.length; i += this.width) {
      const hex = make("span", { class: "vx-digits" });
      const text = make("span", { class: "vx-text", "aria-hidden": "true" });
      for (let k = i; k < i + this.width; k++) {
        if (k >= bytes.length) {
          hex.append(make("i", {}, "  "));
          continue;
        }
        const at = start + k;
        const chosen = at >= this.offset && at < this.offset + this.size;
        let kind = chosen ? "vx-chosen" : "";
        if (chosen && at === this.offset) kind += " vx-first";
        if (chosen && at === this.offset + this.size - 1) kind += " vx-last";
        if (apart && theirs[k] !== bytes[k]) kind += " vx-unlike";
        const code = parseInt(bytes[k], 16);
        hex.append(make("b", { class: kind, "data-at": at }, bytes[k]));
        text.append(make("b", { class: kind, "data-at": at }, code > 31 && code < 127 ? String.fromCharCode(code) : "·"));
      }
      const address = make("span", { class: "vx-address" }, (start + i).toString(16).padStart(8, "0"));
      lines.push(make("div", { class: "vx-line" }, address, hex, text));
    }
    this.body.replaceChildren(...lines);
  }
}

function render({ model, el }) {
  const start = model.get("_start");
  const two = start.streams.length === 2;
  const letters = ["a", "b"];
  const status = make("div", { role: "status", class: "vx-status" });
  const say = (text) => (status.textContent = text);
  const kernel = new Kernel(model, say);

  const title = make("div", { class: "vx-title" });
  start.streams.forEach((stream, i) => {
    title.append(
      make(
        "div",
        {},
        two && make("b", { class: "vx-side-name" }, letters[i]),
        make("b", {}, stream.name),
        ` ${stream.machine === "not said" ? "machine not said" : stream.machine}, ${number(stream.size)} bytes`,
        stream.error && make("span", { class: "vx-mark" }, ` read up to an error: ${stream.error}`)
      )
    );
  });

  // What is known of the chosen thing, and its bytes.
  const head = make("div", { class: "vx-head", "aria-live": "polite" }, "Choose a section or a field.");
  const hexes = start.streams.map(
    (stream, i) => new Hex(stream.name, i, two ? 8 : 16, kernel, go, () => draw())
  );
  const facts = start.streams.map(() => make("dl", { class: "vx-facts" }));
  const flags = make("div", { class: "vx-flags" });
  const sides = make("div", { class: two ? "vx-sides vx-two" : "vx-sides" });
  start.streams.forEach((_, i) =>
    sides.append(make("div", {}, two && make("div", { class: "vx-side-name" }, letters[i]), facts[i], hexes[i].element))
  );

  function draw() {
    hexes.forEach((hex, i) => hex.draw(hexes[1 - i]));
  }

  function show(detail) {
    const about = [detail.where, detail.vmsd].filter((x) => x);
    head.replaceChildren(
      make("div", { class: "vx-name" }, detail.title),
      make("div", { class: "vx-about" }, `${detail.kind}${about.length ? " of " : ""}${about.join(", ")}`)
    );
    if (detail.type) head.append(make("div", {}, make("code", {}, detail.type), detail.meaning && `: ${detail.meaning}`));
    if (detail.facts.length) head.append(tell(make("dl", { class: "vx-facts" }), detail.facts));
    flags.replaceChildren();
    if (detail.flags) {
      flags.append(make("div", { class: "vx-about" }, `${detail.flags.length} flags set`));
      const list = make("ul", {});
      for (const flag of detail.flags)
        list.append(
          make(
            "li",
            { title: flag.meaning, class: flag.only ? "vx-unlike" : "" },
            flag.name,
            flag.only && make("span", { class: "vx-mark" }, ` only ${flag.only}`)
          )
        );
      flags.append(list);
    }
    detail.sides.forEach((side, i) => {
      tell(facts[i], side ? side.facts : []);
      Object.assign(hexes[i], side ? { window: side.bytes, offset: side.offset, size: side.size } : { window: null });
    });
    draw();
  }

  let last = 0;
  async function chosen(row) {
    const mine = ++last;
    await new Promise((resolve) => setTimeout(resolve, 60)); // an arrow key that is held down asks once
    if (mine !== last) return;
    const answer = await kernel.ask({ do: "pick", row: row.row });
    if (!answer.error && mine === last) show(answer.detail);
  }
  const tree = new Tree(start.rows, two, kernel, chosen);

  async function go(side, offset, path) {
    const mine = ++last;
    const answer = await kernel.ask({ do: "at", side, offset, path });
    if (answer.error || mine !== last) return;
    tree.reveal(answer, false);
    show(answer.detail);
  }

  // What a search found, or where two streams differ.
  const results = make("div", { class: "vx-results", hidden: true });
  function list(found) {
    const rows = found.rows.map((row) =>
      make(
        "button",
        {
          type: "button",
          disabled: row.offset === null,
          onclick: () => go(row.side, row.offset, row.path),
        },
        make("span", { class: "vx-where" }, row.section),
        make("span", { class: "vx-label" }, row.label),
        make("span", { class: "vx-note" }, row.note)
      )
    );
    const box = make("div", { class: "vx-list" }, ...rows);
    box.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      event.stopPropagation();
      const next = rows[rows.indexOf(document.activeElement) + step];
      next?.focus();
      next?.click();
    });
    results.replaceChildren(make("div", { class: "vx-about" }, found.title), box);
    results.hidden = false;
  }

  const query = make("input", {
    type: "search",
    placeholder: 'insns_flags, *.server, 21, 0x15, "text"',
    "aria-label": "Search by name, value or text",
  });
  const search = make("form", { class: "vx-search", role: "search" }, query, make("button", {}, "Search"));
  search.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!query.value.trim()) {
      if (two) list((await kernel.ask({ do: "differences" })).found);
      else results.hidden = true;
      return;
    }
    say("Searching …");
    const answer = await kernel.ask({ do: "find", query: query.value });
    if (!answer.error) list(answer.found);
  });
  query.addEventListener("search", () => !query.value && search.requestSubmit()); // its × was clicked
  query.addEventListener("keydown", (event) => event.stopPropagation());
  const body = make("div", { class: "vx-body" });
  if (two) {
    const only = make("input", { type: "checkbox", onchange: () => body.classList.toggle("vx-only", only.checked) });
    search.append(make("label", {}, only, " only what differs"));
    list(start.found);
  }

  body.append(tree.element, make("div", { class: "vx-detail" }, head, flags, sides));
  // JupyterLab's shortcuts would take the keys.
  el.append(make("div", { class: "vx", "data-lm-suppress-shortcuts": "true" }, title, search, results, body, status));

  const received = (message) => {
    if (!message.shown) return;
    tree.reveal(message.shown, false);
    show(message.shown.detail);
  };
  model.on("msg:custom", received);
  if (start.shown) received(start);

  // The picture for pages without a kernel is not needed beside the real thing.
  const hide = make("style", {}, `.jp-OutputArea-child:has(#${CSS.escape(start.static)}), #${CSS.escape(start.static)} { display: none }`);
  document.head.append(hide);
  return () => {
    hide.remove();
    kernel.close();
    model.off("msg:custom", received);
  };
}

export default { render };
