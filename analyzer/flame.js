// Carried inside the SVG (analyzer/flame_svg.c). Plain DOM, no library; the picture is complete without it.
"use strict";
(function () {
  const root = document.documentElement;
  const area = document.getElementById("frames");
  const find = (id) => document.getElementById(id);
  const nodes = [...area.children];
  const total = Number(area.getAttribute("data-total"));
  const pad = 10, least = 0.3;
  const hint = find("details").textContent + " Click: zoom. Ctrl-F or /: search. Arrows: walk. r: all.";
  let charWidth = 7.2, width = 0;
  let zoomed = 0, focused = -1, pattern = "", ignoreCase = false, typing = false, draft = "";

  const frames = nodes.map((node, i) => {
    const text = node.querySelector("text");
    return {
      node, text, i,
      rect: node.querySelector("rect"),
      labels: labelsOf(text.textContent),
      title: node.querySelector("title").textContent,
      x: Number(node.getAttribute("data-x")),
      w: Number(node.getAttribute("data-w")),
      depth: Number(node.getAttribute("data-d")),
      parent: Number(node.getAttribute("data-p")),
      shown: true,
    };
  });
  const byDepth = [];
  for (const f of frames) (byDepth[f.depth] = byDepth[f.depth] || []).push(f);
  for (const level of byDepth) level.sort((a, b) => a.x - b.x);

  function measure() {
    const probe = find("probe");
    const length = probe.getComputedTextLength();
    if (length > 0) charWidth = length / probe.textContent.length;
  }

  // ---- drawing ----

  // What a label may be shortened to, longest first: without the line, without ".<locals>", the function's own name.
  function labelsOf(label) {
    const name = label.replace(/ [^ ]+:\d+$/, ""), brief = name.replaceAll(".<locals>", "");
    const own = /\+0x[0-9a-f]+$/.test(brief) ? brief : /[^.]*(\.<[^.]*)*$/.exec(brief)[0]; // of f.<listcomp>, f too
    return [label, label.replaceAll(".<locals>", ""), name, brief, own];
  }

  function fitText(f, pixels) {
    const room = Math.floor((pixels - 6) / charWidth), last = f.labels[f.labels.length - 1];
    const text = room < 3 ? "" : f.labels.find((label) => label.length <= room) || last.slice(0, room - 2) + "..";
    if (f.text.textContent !== text) f.text.textContent = text;
  }

  function draw() {
    const z = frames[zoomed];
    const from = z.x, span = z.w, inner = width - 2 * pad;
    const above = new Set();
    for (let i = zoomed; i !== 0; i = frames[i].parent) above.add(frames[i].parent);
    for (const f of frames) {
      const ancestor = above.has(f.i);
      let x = (f.x - from) / span, w = f.w / span;
      if (ancestor) { x = 0; w = 1; }
      const inside = ancestor || (f.depth >= z.depth && x > -1e-9 && x < 1 - 1e-9);
      f.shown = inside && w * inner >= least;
      f.node.style.display = f.shown ? "" : "none";
      if (!f.shown) continue;
      f.node.setAttribute("x", (100 * x).toFixed(4) + "%");
      f.node.setAttribute("width", (100 * Math.min(w, 1)).toFixed(4) + "%");
      f.node.classList.toggle("above", ancestor);
      f.node.classList.toggle("thin", w * inner < 3);
      fitText(f, Math.min(w, 1) * inner);
    }
    find("reset").classList.toggle("hidden", zoomed === 0);
  }

  function resize() {
    width = Math.max(300, root.clientWidth || root.getBoundingClientRect().width || 1200);
    area.setAttribute("width", width - 2 * pad);
    find("title").setAttribute("x", width / 2);
    find("subtitle").setAttribute("x", width / 2);
    for (const id of ["search", "case", "matched"]) {
      const at = { search: pad, case: pad + 62, matched: pad }[id];
      find(id).setAttribute("x", width - at);
    }
    draw();
    drawFocus();
  }

  // ---- taller than the window ----

  // Callers that stand below are where one begins to read, so a tall picture opens there; head and details stay in sight.
  const tall = Number(root.getAttribute("height")), icicle = root.getAttribute("data-icicle") === "1";
  const headBar = bar(0, Number(area.getAttribute("y")) - 6), tailBar = bar(tall - 30, 30);
  for (const id of ["title", "subtitle", "reset", "search", "case", "matched", "box", "details"]) root.appendChild(find(id)); // in front of the bars

  function bar(y, height) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const [name, value] of Object.entries({ class: "bar", y, height, width: "100%" })) made.setAttribute(name, value);
    return root.appendChild(made);
  }

  function stick() {
    const down = Math.min(Math.max(0, window.scrollY), Math.max(0, tall - window.innerHeight));
    const up = Math.max(0, tall - window.innerHeight - down);
    for (const part of [headBar, ...["title", "subtitle", "reset", "search", "case", "matched", "box"].map(find)])
      part.setAttribute("transform", "translate(0 " + down + ")");
    for (const part of [tailBar, find("details")]) part.setAttribute("transform", "translate(0 " + -up + ")");
  }

  // ---- details ----

  function details(text) { find("details").textContent = text || hint; }

  function drawFocus() {
    for (const f of frames) f.node.classList.toggle("focus", f.i === focused);
    if (focused >= 0) details(frames[focused].title.replace("\n", ": "));
  }

  // ---- zoom ----

  function zoom(i, keep) {
    zoomed = i;
    draw();
    if (pattern) search(pattern, true);
    if (!keep) save();
  }

  // ---- search ----

  function matcher(source) {
    const flags = ignoreCase ? "i" : "";
    try { return new RegExp(source, flags); }
    catch (e) { return new RegExp(source.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), flags); }
  }

  // The share of what is shown: a match below another match is part of it already.
  function search(source, keep) {
    pattern = source;
    const re = source ? matcher(source) : null;
    const z = frames[zoomed];
    let covered = 0, hits = 0;
    const within = [];
    for (const f of frames) { // parents come before children
      const hit = re !== null && f.i !== 0 && re.test(f.title.split("\n")[0]);
      f.node.classList.toggle("hit", hit);
      const inherited = f.i !== 0 && within[f.parent];
      within[f.i] = inherited || hit;
      if (!hit) continue;
      hits++;
      const low = Math.max(f.x, z.x), high = Math.min(f.x + f.w, z.x + z.w);
      if (!inherited && high > low) covered += high - low;
    }
    const matched = find("matched");
    matched.textContent = re ? "Matched: " + (100 * covered / z.w).toFixed(1) + "% in " + hits + (hits === 1 ? " frame" : " frames") : "";
    root.classList.toggle("searching", re !== null);
    find("search").textContent = source ? "Clear" : "Search";
    if (!keep) save();
  }

  function drawBox() {
    find("box").classList.toggle("hidden", !typing);
    find("query").textContent = "Search (regex): " + draft + "\u258f";
  }

  function startTyping() { typing = true; draft = pattern; drawBox(); }
  function stopTyping(take) {
    typing = false;
    drawBox();
    search(take ? draft : pattern);
  }

  function toggleCase() {
    ignoreCase = !ignoreCase;
    find("case").classList.toggle("on", ignoreCase);
    search(pattern);
  }

  // ---- state in the address ----

  function save() {
    const parts = [];
    if (zoomed) parts.push("zoom=" + zoomed);
    if (pattern) parts.push("search=" + encodeURIComponent(pattern));
    if (ignoreCase) parts.push("ignorecase=1");
    const hash = parts.length ? "#" + parts.join("&") : "";
    try { history.replaceState(null, "", hash || location.pathname + location.search); }
    catch (e) { if (location.hash !== hash) location.hash = hash; } // opaque origins refuse replaceState
  }

  function restore() {
    const state = {};
    for (const part of location.hash.slice(1).split("&")) {
      const at = part.indexOf("=");
      if (at <= 0) continue;
      try { state[part.slice(0, at)] = decodeURIComponent(part.slice(at + 1)); } catch (e) { /* not ours */ }
    }
    const i = Number(state.zoom);
    zoomed = Number.isInteger(i) && i > 0 && i < frames.length ? i : 0;
    ignoreCase = state.ignorecase === "1";
    find("case").classList.toggle("on", ignoreCase);
    draw();
    search(state.search || "", true);
  }

  // ---- keyboard ----

  function neighbour(step) {
    const level = byDepth[frames[focused].depth].filter((f) => f.shown);
    const next = level[level.findIndex((f) => f.i === focused) + step];
    return next ? next.i : focused;
  }

  function widestChild() {
    let best = -1;
    for (const f of frames)
      if (f.parent === focused && f.i !== focused && f.i !== 0 && f.shown && (best < 0 || f.w > frames[best].w)) best = f.i;
    return best < 0 ? focused : best;
  }

  function move(key) {
    const outward = icicle ? "ArrowDown" : "ArrowUp";
    if (focused < 0 || !frames[focused].shown) focused = zoomed;
    else if (key === "ArrowLeft") focused = neighbour(-1);
    else if (key === "ArrowRight") focused = neighbour(1);
    else focused = key === outward ? widestChild() : frames[focused].parent;
    drawFocus();
    const box = frames[focused].node.getBoundingClientRect();
    if (box.top < headBar.getBoundingClientRect().bottom || box.bottom > tailBar.getBoundingClientRect().top) frames[focused].rect.scrollIntoView({ block: "center" });
  }

  function keyTyping(e) {
    if (e.key === "Enter") stopTyping(true);
    else if (e.key === "Escape") stopTyping(false);
    else if (e.key === "Backspace") draft = [...draft].slice(0, -1).join("");
    else if (e.key.length === 1 && !e.ctrlKey && !e.metaKey) draft += e.key;
    else return;
    e.preventDefault();
    if (!typing) return;
    drawBox();
    const before = pattern;
    search(draft, true);
    pattern = before; // taken over by Enter only
  }

  function key(e) {
    if ((e.ctrlKey || e.metaKey) && e.key.toLowerCase() === "f") {
      e.preventDefault();
      startTyping();
    } else if (typing) {
      keyTyping(e);
    } else if (e.ctrlKey || e.metaKey || e.altKey) {
      return;
    } else if (e.key.startsWith("Arrow")) {
      e.preventDefault();
      move(e.key);
    } else if (e.key === "Enter" && focused >= 0) {
      zoom(focused);
    } else if (e.key === "/") {
      e.preventDefault();
      startTyping();
    } else if (e.key === "i") {
      toggleCase();
    } else if (e.key === "Escape") {
      if (pattern) search("");
      else if (focused >= 0) { focused = -1; drawFocus(); details(""); }
      else zoom(0);
    } else if (e.key === "r") {
      zoom(0);
    }
  }

  // ---- begin ----

  root.removeAttribute("viewBox");
  root.setAttribute("width", "100%");
  root.classList.add("live");
  measure();
  const frameOf = (target) => { const n = target.closest && target.closest("#frames > svg"); return n ? nodes.indexOf(n) : -1; };
  area.addEventListener("click", (e) => { const i = frameOf(e.target); if (i >= 0) { focused = -1; drawFocus(); zoom(i); } });
  area.addEventListener("mouseover", (e) => { const i = frameOf(e.target); if (i >= 0) details(frames[i].title.replace("\n", ": ")); });
  area.addEventListener("mouseleave", () => { details(""); drawFocus(); });
  find("reset").addEventListener("click", () => zoom(0));
  find("search").addEventListener("click", () => { if (pattern) search(""); else startTyping(); });
  find("case").addEventListener("click", toggleCase);
  window.addEventListener("keydown", key);
  window.addEventListener("paste", (e) => {
    if (!typing || !e.clipboardData) return;
    draft += e.clipboardData.getData("text").split("\n")[0];
    drawBox();
  });
  window.addEventListener("resize", () => { resize(); stick(); });
  window.addEventListener("scroll", stick);
  window.addEventListener("hashchange", () => { restore(); drawFocus(); });
  details("");
  resize();
  restore();
  if (!icicle) window.scrollTo(0, tall);
  stick();
})();
