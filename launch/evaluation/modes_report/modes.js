"use strict";
(() => {
  const root = document.documentElement;
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = data.attempts;
  const size = at.m.length;
  const form = document.getElementById("filters");
  const taskForm = document.getElementById("task-filters");
  const all = data.modes.map((_, i) => i);
  const colorOf = (mode) => `var(--m${mode % 8})`;
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const number = (value) => (value >= 100 ? Math.round(value).toLocaleString("en") : value.toFixed(1));

  // ---- texts are parsed when the first task is opened: they are most of the page
  let texts = null;
  const textOf = (index) => {
    texts ??= JSON.parse(document.getElementById("texts").textContent);
    return texts[index];
  };

  // ---- attempts by task and mode
  const byTask = data.tasks.map(() => data.modes.map(() => []));
  for (let i = 0; i < size; i++) byTask[at.t[i]][at.m[i]].push(i);

  // ---- elements, always by textContent: nothing that was generated is ever read as markup
  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === "color") made.style.setProperty("--c", value);
      else if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
    }
    made.append(...children.filter((child) => child !== null));
    return made;
  }
  const SVG = "http://www.w3.org/2000/svg";
  function shape(parent, name, attributes, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  }

  // ---- filters
  const chosen = { modes: new Set(all), source: "", bin: "" };
  for (const mode of all) {
    const box = element("input", { type: "checkbox", name: "mode", value: String(mode), checked: true });
    const chip = element("label", { class: "chip", color: colorOf(mode) }, box, element("span", { class: "dot" }), data.modes[mode].name);
    document.getElementById("mode-filter").append(chip);
  }
  data.sources.forEach((name, i) => form.elements.source.append(element("option", { value: String(i) }, name)));
  data.bins.forEach((name, i) => form.elements.bin.append(element("option", { value: String(i) }, name)));

  function readFilters() {
    const values = new FormData(form);
    chosen.modes = new Set(values.getAll("mode").map(Number));
    chosen.source = values.get("source");
    chosen.bin = values.get("bin");
  }
  const taskFits = (task) => chosen.source === "" || data.tasks[task].source === Number(chosen.source);
  const fits = (i) => (chosen.bin === "" || at.bin[i] === Number(chosen.bin)) && taskFits(at.t[i]);
  const isFiltered = () => chosen.bin !== "" || chosen.source !== "";

  // ---- statistics over what the filters leave: the same estimates as in modes.json, fewer resamples
  const RESAMPLES = 400;
  function generator(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }
  function interval(rows) { // rows of [numerator, denominator], one a task
    const draw = generator(rows.length);
    const means = [];
    for (let r = 0; r < RESAMPLES; r++) {
      let above = 0, below = 0;
      for (let n = 0; n < rows.length; n++) {
        const row = rows[Math.floor(draw() * rows.length)];
        above += row[0];
        below += row[1];
      }
      means.push(above / below);
    }
    means.sort((a, b) => a - b);
    return [means[Math.floor(0.025 * RESAMPLES)], means[Math.ceil(0.975 * RESAMPLES) - 1]];
  }
  function estimate(rows, isShare) {
    if (!rows.length) return null;
    const sum = (place) => rows.reduce((total, row) => total + row[place], 0);
    const value = sum(0) / sum(1);
    if (isShare && (value === 0 || value === 1)) { // resampling sees no spread: the exact binomial bound
      const bound = 0.025 ** (1 / rows.length);
      return { value, low: value ? bound : 0, high: value ? 1 : 1 - bound };
    }
    const [low, high] = interval(rows);
    return { value, low, high };
  }
  function taskRows(mode, values, keep = fits) { // pooled within a bin, else the mean of each task
    const rows = [];
    for (let task = 0; task < data.tasks.length; task++) {
      let above = 0, below = 0;
      for (const i of byTask[task][mode]) {
        const value = values(i);
        if (value === null || !keep(i)) continue;
        above += value;
        below += 1;
      }
      if (below) rows.push(chosen.bin === "" ? [above / below, 1] : [above, below]);
    }
    return rows;
  }
  const verdict = (i) => (at.ok[i] < 0 ? null : at.ok[i]);
  const thinking = (i) => at.think[i];
  function point(mode) {
    const known = data.modes[mode];
    if (!isFiltered()) {
      const tokens = known.thinking_tokens;
      return known["pass@1"].value === null || tokens.mean === null ? null : { mode, y: known["pass@1"], x: { value: tokens.mean, low: tokens.low, high: tokens.high } };
    }
    const y = estimate(taskRows(mode, verdict), true), x = estimate(taskRows(mode, thinking), false);
    return x && y ? { mode, x, y } : null;
  }

  // ---- plots
  function ticks(end, count) {
    const step = end / count, power = 10 ** Math.floor(Math.log10(step));
    const nice = [1, 2, 5, 10].map((f) => f * power).find((f) => f >= step);
    return Array.from({ length: Math.floor(end / nice + 1e-9) + 1 }, (_, i) => i * nice);
  }
  function canvas(id, { left = 46, right = 14, top = 12, bottom = 38 } = {}) {
    const svg = document.getElementById(id);
    svg.replaceChildren();
    const { width, height } = svg.getBoundingClientRect();
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    return { svg, x0: left, x1: width - right, y0: height - bottom, y1: top };
  }
  function shares(c, low = 0, high = 1) {
    const y = (share) => c.y0 - ((share - low) / (high - low)) * (c.y0 - c.y1);
    for (let share = 0; share <= 1.001; share += high - low > 0.5 ? 0.2 : 0.1) {
      if (share < low - 1e-9 || share > high + 1e-9) continue;
      shape(c.svg, "line", { class: "grid-line", x1: c.x0, x2: c.x1, y1: y(share), y2: y(share) });
      shape(c.svg, "text", { x: c.x0 - 7, y: y(share) + 4, "text-anchor": "end" }, `${Math.round(100 * share)}%`);
    }
    return y;
  }
  const empty = (c) => shape(c.svg, "text", { x: (c.x0 + c.x1) / 2, y: (c.y0 + c.y1) / 2, "text-anchor": "middle" }, "nothing left by the filters");

  function pareto(points) {
    const beaten = (p) => points.some((q) => q.x.value <= p.x.value && q.y.value >= p.y.value && (q.x.value < p.x.value || q.y.value > p.y.value));
    return points.filter((p) => !beaten(p)).sort((a, b) => a.x.value - b.x.value);
  }

  function drawFrontier(points) {
    const c = canvas("plot-frontier");
    if (!points.length) return empty(c);
    const end = Math.max(...points.map((p) => p.x.high), 1) * 1.08;
    const x = (tokens) => c.x0 + 12 + (tokens / end) * (c.x1 - c.x0 - 12);
    const y = shares(c);
    for (const tick of ticks(end, 6)) shape(c.svg, "text", { x: x(tick), y: c.y0 + 17, "text-anchor": "middle" }, tick.toLocaleString("en"));
    shape(c.svg, "line", { class: "axis", x1: c.x0, x2: c.x1, y1: c.y0, y2: c.y0 });
    shape(c.svg, "text", { x: (c.x0 + c.x1) / 2, y: c.y0 + 34, "text-anchor": "middle" }, "mean thinking tokens");
    const front = pareto(points);
    let path = "";
    front.forEach((p, i) => { path += i ? ` H ${x(p.x.value)} V ${y(p.y.value)}` : `M ${x(p.x.value)} ${y(p.y.value)}`; });
    if (front.length) shape(c.svg, "path", { class: "frontier", d: `${path} H ${c.x1}` });
    const placed = [];
    for (const p of points) {
      const px = x(p.x.value), py = y(p.y.value), color = colorOf(p.mode), name = data.modes[p.mode].name;
      const line = { stroke: color, "stroke-width": 1.6, opacity: 0.75 };
      shape(c.svg, "line", { ...line, x1: px, x2: px, y1: y(p.y.low), y2: y(p.y.high) });
      shape(c.svg, "line", { ...line, x1: x(p.x.low), x2: x(p.x.high), y1: py, y2: py });
      const isFront = front.includes(p);
      const dot = shape(c.svg, "circle", { class: "point", cx: px, cy: py, r: 7, fill: isFront ? color : "var(--card)", stroke: color, "stroke-width": 2.5, tabindex: 0, "data-mode": name });
      dot.dataset.note = `${name}${name === data.base ? " (base)" : ""}\naccuracy ${percent(p.y.value)} [${percent(p.y.low)}, ${percent(p.y.high)}]\nthinking ${number(p.x.value)} tokens [${number(p.x.low)}, ${number(p.x.high)}]`;
      const nearRight = px > c.x1 - 90;
      let ty = py - 11;
      while (placed.some((q) => Math.abs(q[0] - px) < 60 && Math.abs(q[1] - ty) < 15)) ty += 26;
      placed.push([px, ty]);
      shape(c.svg, "text", { class: "name", x: px + (nearRight ? -11 : 11), y: ty, "text-anchor": nearRight ? "end" : "start" }, name);
    }
  }

  function drawDifficulty(modes) {
    const c = canvas("plot-difficulty");
    const y = shares(c), groups = data.bins.length, band = (c.x1 - c.x0) / groups;
    const bar = Math.min(34, (band * 0.78) / Math.max(1, modes.length));
    data.bins.forEach((name, bin) => {
      const middle = c.x0 + band * (bin + 0.5);
      shape(c.svg, "text", { x: middle, y: c.y0 + 17, "text-anchor": "middle" }, name);
      let counted = 0;
      modes.forEach((mode, place) => {
        const found = chosen.source === "" ? { ...data.modes[mode].by_difficulty[name].accuracy, n: data.modes[mode].by_difficulty[name].num_judged } : inBin(mode, bin);
        if (!found || found.value === null) return;
        counted += found.n;
        const left = middle + (place - modes.length / 2) * bar + 1, color = colorOf(mode);
        const drawn = shape(c.svg, "rect", { class: "bar", x: left, y: y(found.value), width: bar - 2, height: Math.max(1.5, c.y0 - y(found.value)), rx: 2, fill: color, opacity: 0.85, tabindex: 0 });
        drawn.dataset.note = `${data.modes[mode].name}, ${name}\naccuracy ${percent(found.value)} [${percent(found.low)}, ${percent(found.high)}]\n${found.n.toLocaleString("en")} judged attempts`;
        const center = left + bar / 2 - 1;
        shape(c.svg, "line", { x1: center, x2: center, y1: y(found.low), y2: y(found.high), stroke: "var(--text)", "stroke-width": 1.2, opacity: 0.65 });
      });
      shape(c.svg, "text", { x: middle, y: c.y0 + 34, "text-anchor": "middle" }, `${counted.toLocaleString("en")} attempts`);
    });
    shape(c.svg, "line", { class: "axis", x1: c.x0, x2: c.x1, y1: c.y0, y2: c.y0 });
  }
  function inBin(mode, bin) {
    const rows = [];
    for (let task = 0; task < data.tasks.length; task++) {
      if (!taskFits(task)) continue;
      const judged = byTask[task][mode].filter((i) => at.ok[i] >= 0 && at.bin[i] === bin);
      if (judged.length) rows.push([judged.filter((i) => at.ok[i]).length, judged.length]);
    }
    const found = estimate(rows, false);
    return found && { ...found, n: rows.reduce((total, row) => total + row[1], 0) };
  }

  function drawTokens(modes) {
    const c = canvas("plot-tokens", { left: 86, bottom: 26 });
    const values = modes.map((mode) => {
      const found = [];
      for (let i = 0; i < size; i++) if (at.m[i] === mode && at.think[i] !== null && fits(i)) found.push(at.think[i]);
      return found.sort((a, b) => a - b);
    });
    const end = Math.max(1, ...values.map((v) => v[Math.floor(0.95 * (v.length - 1))] ?? 0)) * 1.06;
    const x = (tokens) => c.x0 + (tokens / end) * (c.x1 - c.x0);
    for (const tick of ticks(end, 6)) {
      shape(c.svg, "line", { class: "grid-line", x1: x(tick), x2: x(tick), y1: c.y1, y2: c.y0 });
      shape(c.svg, "text", { x: x(tick), y: c.y0 + 17, "text-anchor": "middle" }, tick.toLocaleString("en"));
    }
    const band = (c.y0 - c.y1) / Math.max(1, modes.length);
    modes.forEach((mode, place) => {
      const v = values[place], middle = c.y1 + band * (place + 0.5), color = colorOf(mode), tall = Math.min(20, band * 0.55);
      shape(c.svg, "text", { x: c.x0 - 9, y: middle + 4, "text-anchor": "end" }, data.modes[mode].name);
      if (!v.length) return;
      const q = [0.05, 0.25, 0.5, 0.75, 0.95].map((share) => v[Math.round(share * (v.length - 1))]);
      shape(c.svg, "line", { x1: x(q[0]), x2: x(q[4]), y1: middle, y2: middle, stroke: color, "stroke-width": 2 });
      const box = shape(c.svg, "rect", { class: "box", x: x(q[1]), y: middle - tall / 2, width: Math.max(2, x(q[3]) - x(q[1])), height: tall, rx: 3, fill: color, opacity: 0.8, tabindex: 0 });
      box.dataset.note = `${data.modes[mode].name}: ${q.map(number).join(" / ")} tokens\n${v.length.toLocaleString("en")} attempts`;
      shape(c.svg, "line", { x1: x(q[2]), x2: x(q[2]), y1: middle - tall / 2, y2: middle + tall / 2, stroke: "var(--card)", "stroke-width": 2.5 });
      const cap = data.modes[mode].promised_thinking_tokens;
      if (cap && cap <= end) shape(c.svg, "line", { x1: x(cap), x2: x(cap), y1: middle - band * 0.42, y2: middle + band * 0.42, stroke: "var(--text)", "stroke-width": 1.2, "stroke-dasharray": "2 3" });
    });
  }

  function drawSamples(modes) {
    const c = canvas("plot-samples", { bottom: 30 });
    const ks = Object.keys(data.modes[0]["pass@k"]).map(Number).sort((a, b) => a - b);
    const y = shares(c), last = Math.log2(Math.max(2, ks.at(-1) ?? 2));
    const x = (k) => c.x0 + 12 + (Math.log2(k) / last) * (c.x1 - c.x0 - 24);
    for (const k of ks) shape(c.svg, "text", { x: x(k), y: c.y0 + 17, "text-anchor": "middle" }, `k = ${k}`);
    shape(c.svg, "line", { class: "axis", x1: c.x0, x2: c.x1, y1: c.y0, y2: c.y0 });
    for (const mode of modes) {
      for (const [key, dash] of [["pass@k", ""], ["majority@k", "4 4"]]) {
        const points = ks.map((k) => [k, data.modes[mode][key][k]]).filter(([, e]) => e && e.value !== null);
        if (!points.length) continue;
        shape(c.svg, "path", { d: points.map(([k, e], i) => `${i ? "L" : "M"} ${x(k)} ${y(e.value)}`).join(" "), fill: "none", stroke: colorOf(mode), "stroke-width": 2, "stroke-dasharray": dash });
        for (const [k, e] of points) {
          const dot = shape(c.svg, "circle", { cx: x(k), cy: y(e.value), r: 4, fill: colorOf(mode), tabindex: 0 });
          dot.dataset.note = `${data.modes[mode].name}: ${key.replace("k", k)} ${percent(e.value)} [${percent(e.low)}, ${percent(e.high)}]`;
        }
      }
    }
  }

  // ---- tasks
  const PAGE = 25;
  let shown = PAGE, listed = [], opened = null;
  const summaries = data.tasks.map((task, t) => data.modes.map((_, mode) => {
    const judged = byTask[t][mode].filter((i) => at.ok[i] >= 0);
    const thought = byTask[t][mode].filter((i) => at.think[i] !== null);
    return {
      judged: judged.length,
      right: judged.filter((i) => at.ok[i]).length,
      unjudged: byTask[t][mode].length - judged.length,
      tokens: thought.length ? thought.reduce((sum, i) => sum + at.think[i], 0) / thought.length : null,
    };
  }));
  const searchable = data.tasks.map((task) => `${task.key}\n${task.prompt}\n${task.reference}`.toLowerCase());
  const rate = (s) => s.right / s.judged;

  function orderKey(order, task, modes) {
    const cells = modes.map((mode) => summaries[task][mode]).filter((s) => s.judged);
    const rates = cells.map(rate);
    if (order === "gap") return rates.length ? Math.min(...rates) - Math.max(...rates) : 1;
    if (order === "hard") return rates.length ? rates.reduce((a, b) => a + b, 0) / rates.length : 2;
    if (order === "tokens") return -Math.max(-1, ...modes.map((mode) => summaries[task][mode].tokens ?? -1));
    return task;
  }

  function listTasks(modes) {
    const wanted = Object.fromEntries(new FormData(taskForm));
    const text = wanted.text.toLowerCase();
    listed = [];
    for (let task = 0; task < data.tasks.length; task++) {
      if (!taskFits(task) || !searchable[task].includes(text)) continue;
      const cells = modes.map((mode) => summaries[task][mode]);
      if (chosen.bin !== "" && !modes.some((mode) => byTask[task][mode].some((i) => at.bin[i] === Number(chosen.bin)))) continue;
      if (wanted.differ && new Set(cells.filter((s) => s.judged).map(rate)).size < 2) continue;
      if (wanted.unjudged && !cells.some((s) => s.unjudged)) continue;
      listed.push([orderKey(wanted.order, task, modes), task]);
    }
    listed.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    document.getElementById("task-count").textContent = `${listed.length.toLocaleString("en")} of ${data.tasks.length.toLocaleString("en")} tasks`;
    drawTasks(modes);
  }

  function drawTasks(modes) {
    const table = document.getElementById("tasks");
    const head = element("tr", {}, element("th", {}, "task"), element("th", {}, "reference"), ...modes.map((mode) => element("th", { class: "dot", color: colorOf(mode) }, data.modes[mode].name)));
    table.tHead.replaceChildren(head);
    table.tBodies[0].replaceChildren();
    for (const [, task] of listed.slice(0, shown)) {
      table.tBodies[0].append(taskRow(task, modes));
      if (task === opened) table.tBodies[0].append(detailRow(task, modes));
    }
    document.getElementById("more").hidden = listed.length <= shown;
  }
  const clip = (text, length) => (text.length > length ? `${text.slice(0, length)} ...` : text);

  function taskRow(task, modes) {
    const row = element("tr", { class: "row", tabindex: "0", "data-task": data.tasks[task].key, "aria-expanded": String(task === opened) });
    row.append(element("td", { class: "task" }, clip(data.tasks[task].prompt, 160)), element("td", { class: "reference" }, clip(data.tasks[task].reference, 60)));
    for (const mode of modes) {
      const s = summaries[task][mode], badge = element("b", {}, s.judged ? `${s.right}/${s.judged}` : "-");
      if (s.judged) badge.style.background = `color-mix(in srgb, var(--good) ${Math.round(55 * rate(s))}%, color-mix(in srgb, var(--bad) ${Math.round(45 * (1 - rate(s)))}%, transparent))`;
      const tokens = s.tokens === null ? "" : ` ${number(s.tokens)} tok`;
      row.append(element("td", { class: "cell" }, badge, element("span", { class: "quiet" }, `${tokens}${s.unjudged ? `, ${s.unjudged} unjudged` : ""}`)));
    }
    return row;
  }

  function detailRow(task, modes) {
    const columns = element("div", { class: "columns" });
    for (const mode of modes) columns.append(column(task, mode));
    const reference = element("div", { class: "question" }, element("div", { class: "label" }, "task"), element("pre", {}, data.tasks[task].prompt), element("div", { class: "label" }, "reference"), element("pre", {}, data.tasks[task].reference));
    return element("tr", { class: "detail" }, element("td", { colspan: String(modes.length + 2) }, reference, columns));
  }

  function column(task, mode) {
    const attempts = byTask[task][mode], body = element("div", {}), tabs = element("div", { class: "tabs" });
    const outcome = (i) => (at.ok[i] < 0 ? "open" : at.ok[i] ? "right" : "wrong");
    const show = (i) => {
      for (const tab of tabs.children) tab.setAttribute("aria-pressed", String(Number(tab.dataset.attempt) === i));
      const [thought, answer] = textOf(i);
      const facts = `${at.think[i] ?? 0} thinking, ${at.answer[i] ?? 0} answer tokens, finish ${at.finish[i]}${at.why[i] ? `; ${at.why[i]}` : ""}`;
      body.replaceChildren(
        element("div", { class: outcome(i) }, { right: "right", wrong: "wrong", open: "not judged" }[outcome(i)]),
        element("div", { class: "label" }, facts),
        element("div", { class: "label" }, "thinking"), thought === null ? element("span", { class: "quiet" }, "none") : element("pre", {}, thought),
        element("div", { class: "label" }, "answer"), answer === null ? element("span", { class: "quiet" }, "none: the thinking was never closed") : element("pre", {}, answer),
      );
    };
    for (const i of attempts) {
      const mark = { right: "\u2713", wrong: "\u2717", open: "?" }[outcome(i)];
      const tab = element("button", { type: "button", class: outcome(i), "data-attempt": String(i) }, `${at.k[i] + 1} ${mark}`);
      tab.addEventListener("click", () => show(i));
      tabs.append(tab);
    }
    if (attempts.length) show(attempts[0]);
    else body.append(element("span", { class: "quiet" }, "no attempt"));
    return element("div", { class: "column" }, element("h3", { class: "dot", color: colorOf(mode) }, data.modes[mode].name), tabs, body);
  }

  // ---- everything together
  function draw() {
    readFilters();
    const modes = all.filter((mode) => chosen.modes.has(mode));
    drawFrontier(modes.map(point).filter((p) => p !== null));
    drawDifficulty(modes);
    drawTokens(modes);
    drawSamples(modes);
    let counted = 0;
    for (let i = 0; i < size; i++) if (chosen.modes.has(at.m[i]) && fits(i)) counted += 1;
    document.getElementById("count").textContent = `${counted.toLocaleString("en")} of ${size.toLocaleString("en")} attempts`;
    for (const row of document.querySelectorAll("#modes-table tbody tr")) {
      row.hidden = !modes.some((mode) => data.modes[mode].name === row.dataset.mode);
    }
    listTasks(modes);
  }
  data.modes.forEach((mode, i) => {
    const cell = document.querySelectorAll("#modes-table tbody tr")[i].cells[0];
    cell.classList.add("dot");
    cell.style.setProperty("--c", colorOf(i));
  });

  let pending = 0;
  const later = () => { cancelAnimationFrame(pending); pending = requestAnimationFrame(draw); };
  const list = () => { shown = PAGE; listTasks(all.filter((mode) => chosen.modes.has(mode))); };
  form.addEventListener("input", () => { shown = PAGE; draw(); });
  form.addEventListener("reset", () => setTimeout(draw));
  taskForm.addEventListener("input", list);
  for (const each of [form, taskForm]) each.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("more").addEventListener("click", () => { shown += PAGE; drawTasks(all.filter((mode) => chosen.modes.has(mode))); });
  const toggle = (event) => {
    const row = event.target.closest("tr.row");
    if (!row || (event.type === "keydown" && event.key !== "Enter")) return;
    const task = data.tasks.findIndex((entry) => entry.key === row.dataset.task);
    opened = opened === task ? null : task;
    drawTasks(all.filter((mode) => chosen.modes.has(mode)));
    document.querySelector(`#tasks tr.row[aria-expanded="true"]`)?.focus();
  };
  document.getElementById("tasks").addEventListener("click", toggle);
  document.getElementById("tasks").addEventListener("keydown", toggle);
  addEventListener("resize", later);

  // ---- light and dark
  const system = matchMedia("(prefers-color-scheme: dark)");
  const setTheme = (name) => { root.dataset.theme = name; };
  document.getElementById("theme").addEventListener("click", () => setTheme(root.dataset.theme === "dark" ? "light" : "dark"));
  system.addEventListener("change", () => setTheme(system.matches ? "dark" : "light"));
  setTheme(system.matches ? "dark" : "light");

  // ---- notes
  const tip = document.getElementById("tip");
  const note = (event) => {
    const place = event.target.closest("[data-note]");
    tip.hidden = !place;
    if (!place) return;
    tip.textContent = place.dataset.note;
    const box = place.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(box.left, innerWidth - tip.offsetWidth - 16)) + scrollX}px`;
    tip.style.top = `${box.bottom + 7 + scrollY}px`;
  };
  document.addEventListener("mouseover", note);
  document.addEventListener("focusin", note);
  document.addEventListener("focusout", () => { tip.hidden = true; });

  draw();
})();
