"use strict";
// Draws what Rust worked out; it adds up nothing but the lengths of bars.
(() => {
  const { runs, diffs } = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const el = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "class") node.className = value;
      else if (name in node && typeof value !== "string") node[name] = value;
      else node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  };

  // ---- regions and their colors: a hue for a class, a shade for a name, whatever the table ----
  const waits = new Set(runs.flatMap((run) => run.waits.map((id) => run.account.regions[id].cta_class)));
  const isWait = (region) => waits.has(region.cta_class);
  const HUES = [265, 218, 158, 335, 28, 190, 95, 300];
  const namesOf = new Map(); // of a class, in the order in which they appear
  const shared = new Map(); // a sum has the shade of what it sums
  for (const { account: { regions } } of runs) for (const region of regions) {
    const names = namesOf.get(region.cta_class) || [];
    const name = region.scope.sum ? regions[region.scope.sum.of].region : region.region;
    if (!names.includes(name)) names.push(name);
    namesOf.set(region.cta_class, names);
    shared.set(region.region, name);
  }
  const toneOf = (region) => {
    const names = namesOf.get(region.cta_class) || [region.region];
    const at = names.indexOf(shared.get(region.region)), hue = HUES[[...namesOf.keys()].indexOf(region.cta_class) % HUES.length];
    const lightness = 34 + Math.round((34 * at) / Math.max(1, names.length - 1));
    const turned = hue + [0, -22, 22][at % 3];
    return isWait(region) ? [turned, 12, lightness / 2 + 36] : [turned, 52, lightness];
  };
  const colorOf = (region) => { const [hue, saturation, lightness] = toneOf(region); return `hsl(${hue} ${saturation}% ${lightness}%)`; };
  // Names on colors are white or black, whichever stands out more.
  const isLight = (region) => {
    const [hue, saturation, lightness] = toneOf(region), l = lightness / 100, a = saturation / 100 * Math.min(l, 1 - l);
    const channel = (n) => {
      const k = (n + hue / 30) % 12, v = l - a * Math.max(-1, Math.min(k - 3, 9 - k, 1));
      return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    };
    return 0.2126 * channel(0) + 0.7152 * channel(8) + 0.0722 * channel(4) > 0.179;
  };

  // ---- labels: where they are long, what differs in them ----
  const labels = runs.map((run) => run.account.label);
  const shown = (label) => {
    const long = labels.length > 1 && Math.max(...labels.map((l) => l.length)) > 26;
    if (!long) return label;
    const parts = labels.map((l) => l.split(/(?<=[\s,/])/));
    let same = 0;
    while (parts.every((p) => same < p.length - 1 && p[same] === parts[0][same])) same++;
    return (same ? "… " : "") + label.split(/(?<=[\s,/])/).slice(same).join("");
  };

  // ---- numbers ----
  const nanoseconds = (run) => run.account.tick_source === "globaltimer";
  let from = 0, to = 1; // the timelines' window, as shares of the whole scale
  const group = (x, digits) => x.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const time = (run, ticks) => {
    if (!nanoseconds(run)) return group(ticks, 0) + " cycles";
    const us = ticks / 1000;
    if (us >= 10000) return group(us / 1000, 2) + " ms";
    return group(us, us < 10 ? 3 : us < 1000 ? 1 : 0) + " µs";
  };
  // Marks of an axis are all in one unit.
  const mark = (run, ticks, scale) => {
    if (!nanoseconds(run)) return group(ticks, 0);
    const [unit, per] = scale >= 2e6 ? ["ms", 1e6] : ["µs", 1e3];
    const digits = Math.max(0, Math.min(3, 2 - Math.floor(Math.log10(Math.max(1e-9, (to - from) * scale / per)))));
    return `${group(ticks / per, digits)} ${unit}`;
  };
  const amount = (x) => (Math.abs(x) >= 100 ? group(x, 0) : Math.abs(x) >= 10 ? group(x, 1) : group(x, 2));
  const percent = (x) => group(100 * x, 1) + " %";
  const wholeOf = (run) => {
    const a = run.account;
    if (nanoseconds(run) && a.launch_us) return a.launch_us * 1000;
    return a.account.window_ticks || Math.max(1, ...run.ctas.map(extent));
  };
  const extent = (cta) => cta.spans.reduce((most, s) => Math.max(most, s[1] + s[2]), 0);

  // ---- heading and cards ----
  {
    const a = runs[0].account, g = a.geometry;
    $("subtitle").textContent = `${a.family} · ${a.num_regions} regions · grid ${g.slice_ctas} × ${g.num_k_tiles} × ${g.num_seqs} · ` +
      `${runs[0].ctas.length.toLocaleString("en-US")} CTAs · ${a.tick_source}` + (runs.length > 1 ? ` · ${runs.length} launches` : "");
    $("synthetic").hidden = !runs.some((run) => run.synthetic);
    document.title = runs.map((r) => r.account.label).join(" / ") + " – region timing";
    for (const run of runs) {
      const a = run.account, t = a.account;
      const [number, unit] = time(run, wholeOf(run)).split(" ");
      const card = el("article", { class: "card" },
        el("h3", {}, a.label),
        el("div", { class: "big" }, number + " ", el("small", {}, unit + (a.launch_us ? " a launch" : " first tick to last"))));
      const waiting = t.wait_ticks / Math.max(1, t.wait_ticks + t.work_ticks);
      card.append(el("p", {}, el("b", {}, percent(waiting)), " of all CTAs' time is waiting"));
      card.append(el("p", {}, "busiest CTA ", el("b", {}, `${t.busiest_cta}`), `: ${time(run, t.busiest_work_ticks)} of work` +
        (t.explained === null ? "" : `, ${percent(t.explained)} explained`)));
      for (const warning of a.warnings) card.append(el("p", { class: "warn" }, warning));
      $("cards").append(card);
    }
  }

  // ---- stacked bars ----
  let bars = "mean", lit = null;
  const parts = (run) => run.accounted.map((id) => {
    const region = run.account.regions[id];
    if (bars === "mean") return { region, ticks: region.raw_total_ticks / run.ctas.length };
    const cta = run.ctas[run.account.account.busiest_cta];
    const sum = cta.sums.find((s) => s[0] === id), span = cta.spans.find((s) => s[0] === id);
    return { region, ticks: sum ? sum[1] : span ? span[2] : 0 };
  }).filter((part) => part.ticks > 0);
  // Bars of one clock share a scale.
  const scaleOf = (run) => Math.max(...runs.filter((r) => nanoseconds(r) === nanoseconds(run)).map(wholeOf));
  function drawBars() {
    for (const b of document.querySelectorAll("[data-bars]")) b.setAttribute("aria-pressed", String(b.dataset.bars === bars));
    $("bars").replaceChildren(...runs.map((run, index) => {
      const scale = scaleOf(run), list = parts(run), total = list.reduce((sum, p) => sum + p.ticks, 0);
      const segments = el("div", { class: "segments" }, ...list.map(({ region, ticks }) => {
        const share = ticks / scale;
        const b = el("button", { type: "button", "data-region": region.region, "data-ticks": String(ticks), "data-run": String(index),
          class: (isWait(region) ? "wait" : "") + (isLight(region) ? " light" : ""), "aria-label": `${region.region}: ${time(run, ticks)}` },
          share > 0.12 ? shortName(region.region) : "");
        b.style.width = 100 * share + "%";
        b.style.backgroundColor = colorOf(region);
        const tell = (x, y) => showTip(x, y, region.region, [`${time(run, ticks)} · ${percent(ticks / total)} of ${bars === "mean" ? "a CTA's time, on average" : "its time"}`,
          `${region.n_active_ctas.toLocaleString("en-US")} CTAs · median ${time(run, region.median_ticks)} · p99 ${time(run, region.p99_ticks)}`]);
        b.addEventListener("pointermove", (e) => { light(region.region); tell(e.clientX, e.clientY); });
        b.addEventListener("pointerleave", () => { light(null); hideTip(); });
        b.addEventListener("focus", () => { const r = b.getBoundingClientRect(); light(region.region); tell(r.left + r.width / 2, r.bottom); });
        b.addEventListener("blur", () => { light(null); hideTip(); });
        return b;
      }));
      const end = el("div", { class: "launch" });
      end.style.width = 100 * wholeOf(run) / scale + "%";
      return el("div", { class: "bar-row" }, el("div", { class: "name", title: run.account.label }, shown(run.account.label)),
        el("div", { class: "track" }, end, segments), el("div", { class: "sum" }, time(run, total)));
    }));
  }
  const shortName = (name) => name.replace(/^phase\d_/, "").replace(/^3[a-d]_/, "").replace(/_per_call$/, "").replaceAll("_", " ");
  function drawLegend() {
    const seen = new Map();
    for (const run of runs) for (const id of run.accounted) {
      const region = run.account.regions[id];
      if (region.raw_total_ticks > 0 && !seen.has(region.region)) seen.set(region.region, region);
    }
    $("legend").replaceChildren(...[...seen.values()].map((region) => {
      const b = el("button", { type: "button", "data-region": region.region }, swatch(region), region.region);
      for (const on of ["pointerenter", "focus"]) b.addEventListener(on, () => light(region.region));
      for (const off of ["pointerleave", "blur"]) b.addEventListener(off, () => light(null));
      return el("li", {}, b);
    }));
  }
  const swatch = (region) => {
    const s = el("span", { class: "swatch" + (isWait(region) ? " wait" : ""), "aria-hidden": "true" });
    s.style.backgroundColor = colorOf(region);
    return s;
  };
  function light(name) {
    if (lit === name) return;
    lit = name;
    for (const box of [$("bars"), $("legend")]) box.classList.toggle("dim", name !== null);
    for (const b of document.querySelectorAll("[data-region]")) b.classList.toggle("lit", b.dataset.region === name);
    drawTimelines();
  }

  // ---- comparison ----
  let showSmall = false;
  $("small").addEventListener("click", () => { showSmall = !showSmall; drawDiff(); });
  function drawDiff() {
    const a = Number($("before").value), b = Number($("after").value), diff = diffs[`${a},${b}`];
    $("diff").replaceChildren();
    if (!diff || diff.error) { $("reading").textContent = diff ? diff.error : "Choose two launches."; return; }
    $("reading").textContent = diff.reading.replaceAll("->", "→").replaceAll(" us", " µs");
    const rows = diff.regions.concat([diff.cluster, diff.launch].filter((row) => row).map((row) => ({ ...row, sum: true })));
    const most = Math.max(...diff.regions.map((r) => Math.max(r.before, r.after)), 1e-9);
    const small = (row) => !row.sum && Math.max(row.before, row.after) < most / 200;
    const some = rows.filter(small).length;
    $("small").hidden = some === 0;
    $("small").textContent = showSmall ? "Hide small regions" : `Show ${some} small regions`;
    const body = el("tbody");
    for (const row of rows.filter((row) => showSmall || !small(row))) {
      const region = [runs[a], runs[b]].flatMap((r) => r.account.regions).find((r) => r.region === row.region);
      const color = region ? colorOf(region) : "var(--accent)";
      const pair = el("td", { class: "pair" });
      for (const [name, value] of [["was", row.before], ["now", row.after]]) {
        const bar = el("div", { class: name + (region && isWait(region) ? " wait" : ""), "data-value": String(value) });
        bar.style.width = Math.min(100, 100 * value / most) + "%";
        bar.style.backgroundColor = color;
        if (!row.sum) pair.append(bar);
      }
      const moved = Math.abs(row.delta) > 0.05 * Math.max(row.before, row.after) && Math.abs(row.delta) > most / 1000;
      const ctas = row.n_before === row.n_after ? `${row.n_after}` : `${row.n_before} → ${row.n_after}`;
      body.append(el("tr", { class: row.sum ? "sum" : row.before || row.after ? "" : "off", "data-region-row": row.region },
        el("td", {}, ...(region ? [swatch(region)] : []), row.region), el("td", { class: "n" }, ctas), pair,
        el("td", { class: "n" }, amount(row.before)), el("td", { class: "n" }, amount(row.after)),
        el("td", { class: "n " + (moved ? (row.delta < 0 ? "less" : "more") : "") }, (row.delta > 0 ? "+" : "") + amount(row.delta)),
        el("td", { class: "n" }, row.ratio === null ? "–" : group(row.ratio, 2) + "×")));
    }
    const unit = diff.unit === "us" ? "µs" : diff.unit;
    $("diff").append(el("thead", {}, el("tr", {}, el("th", {}, "Region"), el("th", { class: "n" }, "CTAs"), el("th", {}, "Before over after"),
      ...["Before", "After", "Delta"].map((h) => el("th", { class: "n" }, `${h}, ${unit}`)), el("th", { class: "n" }, "Before / after"))), body);
  }

  // ---- timelines ----
  const GUTTER = 92, AXIS = 24;
  let order = "sm";
  const lanes = runs.map((run, index) => {
    const view = el("div", { class: "view", tabIndex: 0, role: "application", "aria-label": `Timeline of ${run.account.label}: arrow keys move between spans` });
    const canvas = el("canvas"), spacer = el("div");
    view.append(canvas, spacer);
    $("timelines").append(el("div", { class: "lane" }, el("h3", {}, run.account.label), view));
    const lane = { run, index, view, canvas, spacer, rows: [], height: 0, chosen: null };
    view.addEventListener("scroll", () => draw(lane));
    view.addEventListener("pointermove", (e) => hover(lane, e));
    view.addEventListener("pointerleave", () => { if (document.activeElement !== view) { hideTip(); lane.chosen = null; draw(lane); } });
    view.addEventListener("keydown", (e) => key(lane, e));
    view.addEventListener("focus", () => { if (!lane.chosen) choose(lane, 0, 0); });
    view.addEventListener("blur", () => { lane.chosen = null; hideTip(); draw(lane); });
    view.addEventListener("wheel", (e) => {
      if (!e.ctrlKey) return;
      e.preventDefault();
      zoom(e.deltaY < 0 ? 0.8 : 1.25, shareAt(lane, e));
    }, { passive: false });
    view.addEventListener("pointerdown", (e) => { drag = { x: e.clientX, from, to, width: plot(lane) }; });
    return lane;
  });
  let drag = null;
  addEventListener("pointerup", () => { drag = null; });
  addEventListener("pointermove", (e) => {
    if (!drag || !(e.buttons & 1)) return;
    const shift = Math.max(-drag.from, Math.min(1 - drag.to, (drag.x - e.clientX) / drag.width * (drag.to - drag.from)));
    from = drag.from + shift;
    to = drag.to + shift;
    drawTimelines();
  });
  const plot = (lane) => Math.max(50, lane.view.clientWidth - GUTTER - 8);
  const shareAt = (lane, e) => from + (e.clientX - lane.view.getBoundingClientRect().left - GUTTER) / plot(lane) * (to - from);
  function zoom(factor, at = (from + to) / 2) {
    const width = Math.min(1, Math.max(1e-6, (to - from) * factor));
    from = Math.max(0, Math.min(1 - width, at - (at - from) * width / (to - from)));
    to = from + width;
    drawTimelines();
  }
  // Spans of a row in the order in which they are drawn: a loop's earlier iterations first.
  function spansOf(run, cta) {
    const list = cta.spans.map(([id, entry, length]) => ({ region: run.account.regions[id], entry, length }));
    const last = list.filter((s) => s.region.scope.per_iteration && cta.sums.some((x) => x[0] === s.region.scope.per_iteration.sum));
    if (!last.length) return list;
    const first = Math.min(...last.map((s) => s.entry));
    const before = list.filter((s) => s.entry + s.length <= first).reduce((most, s) => Math.max(most, s.entry + s.length), 0);
    const earlier = last.map((s) => ({ region: s.region, length: cta.sums.find((x) => x[0] === s.region.scope.per_iteration.sum)[1] - s.length }))
      .filter((s) => s.length > 0);
    const all = earlier.reduce((sum, s) => sum + s.length, 0), fit = all > 0 ? Math.min(1, (first - before) / all) : 0;
    let at = before;
    const pale = earlier.map((s) => { const p = { ...s, entry: at, drawn: s.length * fit, earlier: true }; at += p.drawn; return p; });
    return [...pale, ...list].sort((a, b) => a.entry - b.entry || b.length - a.length);
  }
  function layout(lane) {
    const work = (cta) => cta.spans.filter((s) => !isWait(lane.run.account.regions[s[0]])).reduce((sum, s) => sum + s[2], 0);
    lane.rows = lane.run.ctas.map((cta, index) => ({ cta, index, spans: spansOf(lane.run, cta) }));
    if (order === "sm") lane.rows.sort((a, b) => (a.cta.sm ?? 0) - (b.cta.sm ?? 0) || a.index - b.index);
    if (order === "work") lane.rows.sort((a, b) => work(b.cta) - work(a.cta));
    lane.height = Math.max(3, Math.min(14, Math.floor(560 / lane.rows.length)));
    const whole = AXIS + lane.rows.length * lane.height + 6;
    const shown = Math.min(whole, 618);
    lane.canvas.style.height = shown + "px";
    lane.spacer.style.height = whole - shown + "px";
  }
  const patterns = new Map();
  function hatch(context, color) {
    if (!patterns.has(color)) {
      const tile = el("canvas", { width: 6, height: 6 }), c = tile.getContext("2d");
      c.fillStyle = color; c.fillRect(0, 0, 6, 6);
      c.strokeStyle = "rgba(255,255,255,.34)"; c.lineWidth = 1.2;
      for (const shift of [-6, 0, 6]) { c.beginPath(); c.moveTo(shift, 6); c.lineTo(shift + 6, 0); c.stroke(); }
      patterns.set(color, tile);
    }
    return context.createPattern(patterns.get(color), "repeat");
  }
  function draw(lane) {
    const { canvas, view, run, height } = lane, dpr = devicePixelRatio || 1;
    const width = view.clientWidth, tall = parseFloat(canvas.style.height), style = getComputedStyle(document.documentElement);
    const [ink, soft, line, band, panel] = ["--ink", "--soft", "--line", "--band", "--panel"].map((n) => style.getPropertyValue(n).trim());
    if (canvas.width !== Math.round(width * dpr) || canvas.height !== Math.round(tall * dpr)) {
      canvas.width = Math.round(width * dpr); canvas.height = Math.round(tall * dpr);
    }
    const c = canvas.getContext("2d");
    c.setTransform(dpr, 0, 0, dpr, 0, 0);
    c.clearRect(0, 0, width, tall);
    c.font = "11px system-ui, 'DejaVu Sans', sans-serif";
    const scale = scaleOf(run), w = plot(lane), x = (ticks) => GUTTER + (ticks / scale - from) / (to - from) * w;
    const first = Math.max(0, Math.floor(view.scrollTop / height)), last = Math.min(lane.rows.length, Math.ceil((view.scrollTop + tall) / height));
    const labels = [];
    let labeled = -1e9, bands = 0, current = null;
    for (let i = 0; i < last; i++) {
      const row = lane.rows[i], sm = row.cta.sm;
      const opens = order === "sm" && sm !== null && sm !== current;
      if (opens) { current = sm; bands++; }
      if (i < first) continue;
      const y = AXIS + i * height - view.scrollTop;
      if (order === "sm" && sm !== null ? bands % 2 : i % 2) { c.fillStyle = band; c.fillRect(0, y, width, height); }
      if (y - labeled >= 13) {
        const text = order === "sm" && sm !== null ? (height >= 11 ? `SM ${sm} · CTA ${row.index}` : opens ? `SM ${sm}` : "") : `CTA ${row.index}`;
        if (text) { labels.push([text, y + Math.max(7, height / 2)]); labeled = y; }
      }
      c.save();
      c.beginPath(); c.rect(GUTTER, y, w, height); c.clip();
      const inset = height > 5 ? 1 : 0;
      for (const span of row.spans) {
        const left = x(span.entry), right = x(span.entry + (span.drawn ?? span.length));
        if (right < GUTTER || left > GUTTER + w) continue;
        const color = colorOf(span.region), inside = span.region.scope.inside;
        c.globalAlpha = (lit && !same(span.region, lit) ? 0.15 : 1) * (span.earlier ? 0.5 : 1);
        c.fillStyle = isWait(span.region) ? hatch(c, color) : color;
        const grow = inside && height > 6 ? 2 : 0;
        c.fillRect(left, y + inset + grow, Math.max(0.6, right - left), height - 2 * inset - 2 * grow);
      }
      c.globalAlpha = 1;
      const chosen = lane.chosen && lane.chosen.row === i ? row.spans[lane.chosen.span] : null;
      if (chosen) {
        c.strokeStyle = ink; c.lineWidth = 1.5;
        const left = x(chosen.entry);
        c.strokeRect(left, y + 0.75, Math.max(2, x(chosen.entry + (chosen.drawn ?? chosen.length)) - left), height - 1.5);
      }
      c.restore();
    }
    c.fillStyle = soft; c.textBaseline = "middle";
    for (const [text, y] of labels) c.fillText(text, 8, y);
    // The axis lies over the rows, which scroll under it.
    c.fillStyle = panel; c.fillRect(0, 0, width, AXIS);
    c.strokeStyle = line; c.lineWidth = 1;
    c.beginPath(); c.moveTo(0, AXIS - 0.5); c.lineTo(width, AXIS - 0.5); c.stroke();
    const step = nice((to - from) * scale / Math.max(2, w / 110));
    c.fillStyle = soft;
    for (let t = Math.ceil(from * scale / step) * step; t <= to * scale; t += step) {
      c.beginPath(); c.moveTo(x(t), AXIS - 6); c.lineTo(x(t), tall); c.globalAlpha = 0.5; c.stroke(); c.globalAlpha = 1;
      if (x(t) < width - 54) c.fillText(mark(run, t, scale), x(t) + 4, AXIS / 2);
    }
  }
  const nice = (x) => { const p = 10 ** Math.floor(Math.log10(x)); return [1, 2, 5, 10].find((m) => m * p >= x) * p; };
  const same = (region, name) => {
    if (region.region === name) return true;
    const sum = region.scope.per_iteration && region.scope.per_iteration.sum;
    return sum !== undefined && sum !== null && runs.some((r) => r.account.regions[sum] && r.account.regions[sum].region === name);
  };
  function drawTimelines() { lanes.forEach(draw); }
  function tell(lane, row, span, x, y) {
    const { run } = lane, block = row.cta.block.join(", ");
    const title = span.region.region + (span.earlier ? " (earlier iterations)" : span.region.scope.per_iteration ? " (last iteration)" : "");
    const when = span.earlier ? "their sum; when they ran is not recorded" : `from ${time(run, span.entry)} to ${time(run, span.entry + span.length)}`;
    showTip(x, y, title, [`${time(run, span.length)} · ${percent(span.length / wholeOf(run))} of the launch`, when,
      `CTA ${row.index} (${block})` + (row.cta.sm === null ? "" : ` on SM ${row.cta.sm}`) + ` · ${span.region.cta_class}`]);
    $("said").textContent = `CTA ${row.index}: ${title}, ${time(run, span.length)}`;
  }
  function hover(lane, e) {
    const box = lane.view.getBoundingClientRect(), y = e.clientY - box.top;
    const i = Math.floor((y - AXIS + lane.view.scrollTop) / lane.height), row = lane.rows[i];
    const at = shareAt(lane, e) * scaleOf(lane.run), slack = (to - from) * scaleOf(lane.run) / plot(lane);
    let found = -1;
    if (row && y > AXIS && e.clientX - box.left >= GUTTER) {
      row.spans.forEach((s, j) => { if (at >= s.entry - slack && at <= s.entry + (s.drawn ?? s.length) + slack) found = j; });
    }
    if (found < 0) { lane.chosen = null; hideTip(); } else { lane.chosen = { row: i, span: found }; tell(lane, row, row.spans[found], e.clientX, e.clientY); }
    draw(lane);
  }
  function choose(lane, i, j) {
    const row = lane.rows[Math.max(0, Math.min(lane.rows.length - 1, i))];
    if (!row) return;
    i = lane.rows.indexOf(row);
    const top = i * lane.height, tall = parseFloat(lane.canvas.style.height);
    if (top < lane.view.scrollTop) lane.view.scrollTop = top;
    if (top + lane.height + AXIS > lane.view.scrollTop + tall) lane.view.scrollTop = top + lane.height + AXIS - tall;
    const span = row.spans[Math.max(0, Math.min(row.spans.length - 1, j))];
    lane.chosen = span ? { row: i, span: row.spans.indexOf(span) } : { row: i, span: 0 };
    if (span) {
      const scale = scaleOf(lane.run), middle = (span.entry + (span.drawn ?? span.length) / 2) / scale;
      if (middle < from || middle > to) { const half = (to - from) / 2; from = Math.max(0, Math.min(1 - 2 * half, middle - half)); to = from + 2 * half; drawTimelines(); }
      const box = lane.view.getBoundingClientRect();
      tell(lane, row, span, box.left + GUTTER + (middle - from) / (to - from) * plot(lane), box.top + AXIS + top - lane.view.scrollTop + lane.height);
    }
    draw(lane);
  }
  function key(lane, e) {
    const at = lane.chosen || { row: 0, span: 0 }, row = lane.rows[at.row], span = row && row.spans[at.span];
    // Up and down stay in the region where the next row has it.
    const beside = (step) => {
      const next = lane.rows[at.row + step];
      const j = next && span ? next.spans.findIndex((s) => s.region === span.region && !!s.earlier === !!span.earlier) : -1;
      choose(lane, at.row + step, j < 0 ? at.span : j);
    };
    const keys = {
      ArrowRight: () => choose(lane, at.row, at.span + 1), ArrowLeft: () => choose(lane, at.row, at.span - 1),
      ArrowDown: () => beside(1), ArrowUp: () => beside(-1),
      Home: () => choose(lane, 0, 0), End: () => choose(lane, lane.rows.length - 1, 0),
      "+": () => zoom(0.5, center()), "=": () => zoom(0.5, center()), "-": () => zoom(2, center()), "0": () => { from = 0; to = 1; drawTimelines(); },
      Escape: () => { lane.chosen = null; hideTip(); draw(lane); },
    };
    const center = () => (span ? (span.entry + (span.drawn ?? span.length) / 2) / scaleOf(lane.run) : (from + to) / 2);
    if (!keys[e.key] || e.ctrlKey || e.metaKey || e.altKey) return;
    e.preventDefault();
    keys[e.key]();
  }

  // ---- the tip ----
  function showTip(x, y, title, lines) {
    const tip = $("tip");
    tip.replaceChildren(el("b", {}, title), ...lines.map((l) => el("div", {}, el("span", {}, l))));
    tip.hidden = false;
    tip.style.left = Math.max(8, Math.min(x + 14, innerWidth - tip.offsetWidth - 8)) + "px";
    tip.style.top = Math.max(8, y + 18 + tip.offsetHeight > innerHeight ? y - tip.offsetHeight - 12 : y + 16) + "px";
  }
  function hideTip() { $("tip").hidden = true; }

  // ---- all numbers ----
  function drawTables() {
    for (const run of runs) {
      const ms = (x) => (x === null ? "–" : group(x, 3));
      const body = el("tbody", {}, ...run.account.regions.map((r) => el("tr", { class: r.n_active_ctas ? "" : "off" },
        el("td", { class: "n" }, String(r.region_id)), el("td", {}, swatch(r), r.region), el("td", {}, r.cta_class),
        el("td", { class: "n" }, r.n_active_ctas === r.expected_ctas ? `${r.n_active_ctas}` : `${r.n_active_ctas} of ${r.expected_ctas}`),
        ...[r.mean_ticks, r.median_ticks, r.p99_ticks].map((x) => el("td", { class: "n" }, group(x, 0))),
        el("td", { class: "n" }, group(r.raw_total_ticks, 0)), el("td", { class: "n" }, ms(r.median_us)),
        el("td", { class: "n" }, r.frac_of_kernel === null ? "–" : percent(r.frac_of_kernel)))));
      const head = el("thead", {}, el("tr", {}, el("th", { class: "n" }, "Id"), el("th", {}, "Region"), el("th", {}, "Class"),
        ...["CTAs", "Mean, ticks", "Median", "p99", "Total", "Median, µs", "Of launch"].map((h) => el("th", { class: "n" }, h))));
      $("tables").append(el("details", runs.length === 1 ? { open: true } : {}, el("summary", {}, run.account.label), el("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": `Numbers of ${run.account.label}` }, el("table", {}, head, body))));
    }
  }

  // ---- controls ----
  function theme(name) {
    document.documentElement.dataset.theme = name;
    for (const b of document.querySelectorAll("[data-theme-choice]")) b.setAttribute("aria-pressed", String(b.dataset.themeChoice === name));
    drawTimelines();
  }
  for (const b of document.querySelectorAll("[data-theme-choice]")) b.addEventListener("click", () => theme(b.dataset.themeChoice));
  for (const b of document.querySelectorAll("[data-bars]")) b.addEventListener("click", () => { bars = b.dataset.bars; drawBars(); });
  for (const b of document.querySelectorAll("[data-zoom]")) b.addEventListener("click", () => {
    if (b.dataset.zoom === "all") { from = 0; to = 1; drawTimelines(); } else zoom(b.dataset.zoom === "in" ? 0.5 : 2);
  });
  if (runs.every((r) => r.ctas.every((cta) => cta.sm === null))) { order = "cta"; $("order").querySelector("[value=sm]").remove(); }
  $("order").value = order;
  $("order").addEventListener("change", () => { order = $("order").value; lanes.forEach(layout); drawTimelines(); });
  if (runs.length > 1) {
    $("compare").hidden = false;
    for (const [id, chosen] of [["before", 0], ["after", runs.length - 1]]) {
      $(id).append(...runs.map((r, i) => el("option", { value: String(i), title: r.account.label }, shown(r.account.label))));
      $(id).value = String(chosen);
      $(id).addEventListener("change", drawDiff);
    }
    drawDiff();
  }
  drawBars(); drawLegend(); drawTables();
  lanes.forEach(layout);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  theme(dark.matches ? "dark" : "light");
  dark.addEventListener("change", (e) => theme(e.matches ? "dark" : "light"));
  addEventListener("resize", drawTimelines);
  document.documentElement.dataset.ready = "true";
})();
