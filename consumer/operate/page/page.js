// The status page of one worker, drawn from /status.json. Text only ever gets in as text (textContent): nothing that
// comes from outside is taken for markup, and the page's policy (Content-Security-Policy) would refuse it.
"use strict";

const POLL = 2000; // ms between two questions
const STALE = 10; // s without a report of the main loop
const PAGE = 200; // shards
const LATE = 300; // s of lag from which a shard is in trouble

const byId = (id) => document.getElementById(id);

// --- words --------------------------------------------------------------------------------------------------

const NUMBER = new Intl.NumberFormat("en");
const count = (value) => (value === undefined || value === null ? "–" : NUMBER.format(value));
const plural = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;

function duration(seconds) {
  if (seconds === undefined || seconds === null) return "–";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${seconds.toFixed(0)} s`;
  if (seconds < 7200) return `${(seconds / 60).toFixed(0)} min`;
  return seconds < 172800 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86400).toFixed(0)} d`;
}

function rate(perSecond) {
  if (perSecond === undefined || perSecond === null) return "–";
  if (perSecond === 0) return "0/s";
  return perSecond < 10 ? `${perSecond.toFixed(perSecond < 1 ? 2 : 1)}/s` : `${count(Math.round(perSecond))}/s`;
}

const dollars = (value) => (value === undefined ? "–" : value.toFixed(2));
const percent = (share) => (share === undefined ? "–" : share > 0 && share < 0.01 ? "<1 %" : `${(share * 100).toFixed(0)} %`);
const clock = (seconds) => (seconds ? new Date(seconds * 1000).toISOString().slice(11, 19) : "–");
const moment = (seconds) => (seconds ? `${new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ")} UTC` : "–");
// host/pid/token/10s: the host and the process are what a person looks for.
const worker = (incarnation) => incarnation.split("/").slice(0, 2).join("/");

// --- elements -----------------------------------------------------------------------------------------------

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// The same children in this order: what is there already stays, so that focus, selection and scrolling do.
function arrange(parent, children) {
  children.forEach((child, index) => {
    if (parent.children[index] !== child) parent.insertBefore(child, parent.children[index] || null);
  });
  while (parent.children.length > children.length) parent.lastElementChild.remove();
}

// A table whose rows are kept by their key. A column: name, text(row), and if wanted number, sort(row), draw(cell, row).
class Table {
  constructor(node, columns, { key, sortable, mark }) {
    this.body = node.tBodies[0];
    this.columns = columns;
    this.key = key;
    this.mark = mark || (() => "");
    this.rows = new Map();
    this.sorted = null; // {column, descending}
    const head = element("tr");
    for (const column of columns) {
      const cell = element("th", undefined, { scope: "col", class: column.number ? "number" : "" });
      if (sortable && column.sort) {
        const button = element("button", column.name, { type: "button" });
        button.addEventListener("click", () => this.sort(column, sortable));
        cell.append(button);
      } else cell.textContent = column.name;
      head.append(cell);
    }
    node.tHead.append(head);
    this.heads = [...head.children];
  }

  // Its first order, then the other one, then the worst first again.
  sort(column, changed) {
    const first = Boolean(column.number);
    if (!this.sorted || this.sorted.column !== column) this.sorted = { column, descending: first };
    else this.sorted = this.sorted.descending === first ? { column, descending: !first } : null;
    this.heads.forEach((head, index) => {
      if (this.sorted && this.columns[index] === this.sorted.column)
        head.setAttribute("aria-sort", this.sorted.descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    changed();
  }

  inOrder(rows) {
    if (!this.sorted) return rows;
    const { column, descending } = this.sorted;
    const value = (row) => column.sort(row) ?? (column.number ? -1 : "");
    const way = descending ? -1 : 1;
    return [...rows].sort((a, b) => (value(a) < value(b) ? -way : value(a) > value(b) ? way : 0));
  }

  draw(rows) {
    const kept = new Map();
    for (const row of rows) {
      const key = this.key(row);
      const node = this.rows.get(key) || this.make(row);
      this.fill(node, row);
      kept.set(key, node);
    }
    this.rows = kept;
    arrange(this.body, [...kept.values()]);
  }

  make(row) {
    const node = element("tr");
    if (row.span) {
      node.append(element("td", undefined, { colspan: this.columns.length }));
      return node;
    }
    for (const column of this.columns)
      node.append(element(column.head ? "th" : "td", undefined, {
        "data-label": column.name,
        ...(column.head ? { scope: "row" } : {}),
        class: column.number ? "number" : "",
      }));
    return node;
  }

  fill(node, row) {
    const mark = this.mark(row);
    if (node.className !== mark) node.className = mark;
    if (row.span) {
      row.span(node.cells[0]);
      return;
    }
    this.columns.forEach((column, index) => {
      const cell = node.cells[index];
      const text = column.text(row);
      if (column.draw) {
        if (cell.shown !== text) {
          cell.replaceChildren();
          column.draw(cell, row);
          cell.shown = text;
        }
      } else say(cell, text);
      cell.classList.toggle("nothing", text === "–" || text === "");
    });
  }
}

// --- charts -------------------------------------------------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";

function chart(points, floor, says) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 89 24");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", says);
  const top = Math.max(...points.map((point) => point ?? 0), floor); // what is small shall look small
  const start = 90 - points.length;
  let line = "";
  let area = "";
  let from = null;
  points.forEach((point, index) => {
    const x = start + index;
    if (point === null) {
      if (from !== null) area += `L${x - 1} 24L${from} 24Z`;
      from = null;
      return;
    }
    const y = (22 - (point / top) * 20).toFixed(1);
    line += `${from === null ? "M" : "L"}${x} ${y}`;
    area += `${from === null ? "M" : "L"}${x} ${y}`;
    if (from === null) from = x;
  });
  if (from !== null) area += `L${start + points.length - 1} 24L${from} 24Z`;
  for (const [shape, path] of [["area", area], ["line", line]]) {
    const drawn = document.createElementNS(SVG, "path");
    drawn.setAttribute("d", path || "M0 24");
    drawn.setAttribute("class", shape);
    svg.append(drawn);
  }
  return svg;
}

function drawNumbers(status) {
  const { history, shards } = status;
  const mine = shards.filter((shard) => shard.mine);
  const sum = (name) => mine.reduce((total, shard) => total + (shard[name] || 0), 0);
  const worst = Math.max(0, ...mine.map((shard) => shard.lag || 0));
  const owned = shards.filter((shard) => shard.owner).length;
  const last = (points) => (points.length ? points[points.length - 1] : null);
  const cards = [
    ["Lag", duration(worst), "the oldest unsettled record", history.lag, duration, 5],
    ["Handled", rate(last(history.handled)), "records", history.handled, rate, 1],
    ["Dead letters", rate(last(history.dead_letters)), `${count(status.totals.dead_lettered || 0)} since the start`, history.dead_letters, rate, 0.1],
    ["Throttles", rate(last(history.throttles)), "calls refused by AWS", history.throttles, rate, 1],
    ["Shards", `${count(owned)} of ${count(shards.length)}`, `owned, ${count(mine.length)} of them here`],
    ["In flight", count(sum("in_flight")), "records read, not settled"],
    ["Keys that wait", count(sum("retrying_keys") + sum("deferred_keys") + status.parked_keys), `${count(sum("retrying_keys"))} retrying, ${count(sum("deferred_keys"))} deferred, ${count(status.parked_keys)} parked`],
    ["Letters to redrive", count(status.dead_letter_backlog), `${status.dead_letter_backlog === null ? "not known" : "about"}, at the destination; ${count(status.letters_waiting)} refused by it`],
  ];
  const box = byId("numbers");
  if (!box.children.length)
    for (const [name] of cards) {
      const card = element("div", undefined, { class: "card" });
      card.append(element("p", name, { class: "name" }), element("p", "", { class: "value" }), element("p", "", { class: "dim" }));
      box.append(card);
    }
  cards.forEach(([name, value, note, points, format, floor], index) => {
    const [, shown, below, drawn] = box.children[index].children;
    say(shown, value);
    say(below, note);
    if (!points) return;
    const known = points.filter((point) => point !== null);
    const says = known.length
      ? `${name} over the last ${Math.round((points.length * history.step) / 60)} minutes: at most ${format(Math.max(...known))}, now ${format(last(points))}`
      : `${name}: nothing measured yet`;
    if (drawn && drawn.getAttribute("aria-label") === says && drawn.points === String(points)) return;
    const made = chart(points, floor, says);
    made.points = String(points);
    if (drawn) drawn.replaceWith(made);
    else box.children[index].append(made);
  });
  box.hidden = false;
}

// --- shards -------------------------------------------------------------------------------------------------

const STOPPED = new Set(["halted", "quarantined"]);
const FAILING = new Set(["breaker", "paused", "parked_full", "denied", "read_fails", "destination"]);
const SLOWED = new Set(["throttled", "room", "place", "slot", "retrying"]);

// 0: stopped, 1: fails, 2: has no owner, 3: slow, 4: nothing to see.
function trouble(shard) {
  if (shard.done) return 4;
  if (STOPPED.has(shard.state)) return 0;
  if (FAILING.has(shard.slow_because)) return 1;
  if (!shard.owner && shard.state !== "waiting") return 2;
  return (shard.lag || 0) > LATE || SLOWED.has(shard.slow_because) ? 3 : 4;
}

const SEVERITY = ["critical", "critical", "warning", "warning", ""];
const worstFirst = (a, b) =>
  trouble(a) - trouble(b) || (b.lag ?? -1) - (a.lag ?? -1) || (a.shard_id < b.shard_id ? -1 : a.shard_id > b.shard_id ? 1 : 0);

let current = null; // the document shown
let page = 0;
const opened = new Set(); // finished parts of the lineage that are unfolded

function drawId(cell, row) {
  if (row.depth) cell.style.setProperty("--depth", row.depth);
  else cell.style.removeProperty("--depth");
  cell.classList.toggle("deep", Boolean(row.depth));
  const [, prefix, rest] = /^(shardId-0*)?(.*)$/.exec(row.shard_id);
  const link = element("a", undefined, { href: `#shard=${encodeURIComponent(row.shard_id)}` });
  if (prefix) link.append(element("span", prefix, { class: "dim" }));
  link.append(rest);
  cell.append(link);
}

function drawState(cell, row) {
  cell.append(element("span", row.state, { class: `pill ${STOPPED.has(row.state) ? "critical" : ""}` }));
}

function drawShare(cell, row) {
  cell.append(element("span", percent(row.share)));
  const bar = element("span", undefined, { class: "share", "aria-hidden": "true" });
  bar.style.setProperty("--share", row.share);
  cell.append(bar);
  if (row.hot_key) cell.append(element("span", `${percent(row.hot_key_share)} of it one key`, { class: "hot", title: row.hot_key }));
}

const waiting = (row) => (row.retrying_keys || 0) + (row.deferred_keys || 0) + (row.parked_keys || 0);
const why = (row) => row.note || current.slow[row.slow_because] || (trouble(row) === 2 ? "no worker has it" : row.state === "waiting" && !row.owner ? "waits for its parents" : "");

const shardColumns = [
  { name: "shard", head: true, text: (row) => `${row.shard_id} ${row.depth || 0}`, sort: (row) => row.shard_id, draw: drawId },
  { name: "state", text: (row) => row.state, sort: (row) => row.state, draw: drawState },
  { name: "owner", text: (row) => (row.mine ? "this worker" : row.owner ? worker(row.owner) : "–"), sort: (row) => row.owner || "" },
  { name: "lag", number: true, text: (row) => duration(row.lag), sort: (row) => row.lag },
  { name: "why", text: (row) => why(row) || "–", sort: (row) => row.slow_because || "" },
  { name: "in flight", number: true, text: (row) => count(row.in_flight), sort: (row) => row.in_flight },
  { name: "keys waiting", number: true, text: (row) => (row.mine ? count(waiting(row)) : "–"), sort: waiting },
  { name: "traffic", number: true, text: (row) => (row.share === undefined ? "–" : `${row.share} ${row.hot_key || ""}`), sort: (row) => row.share, draw: drawShare },
];

const shardTable = new Table(byId("shards"), shardColumns, {
  key: (row) => row.key || row.shard_id,
  sortable: () => { page = 0; drawShards(); },
  mark: (row) => (row.span ? row.kind : `${SEVERITY[trouble(row)]} ${row.mine ? "mine" : ""} ${row.shard_id === selected() ? "selected" : ""} ${row.done ? "done" : ""}`.replace(/\s+/g, " ").trim()),
});

function selected() {
  const found = /^#shard=(.+)$/.exec(location.hash);
  try {
    return found ? decodeURIComponent(found[1]) : "";
  } catch {
    return "";
  }
}

function detailOf(shard) {
  const facts = [
    ["note", why(shard) || "none"],
    ["owner", shard.owner || "none"],
    ["epoch of the lease", count(shard.epoch)],
    ["parents", (shard.parents || []).join(", ") || "none"],
    ["until its oldest record is trimmed", duration(shard.headroom)],
    ["checkpoint", shard.checkpoint_age === undefined ? "–" : `${duration(shard.checkpoint_age)} old`],
    ["read", shard.read_rate === undefined ? "–" : `${rate(shard.read_rate)}`],
    ["retrying, deferred, parked keys", `${count(shard.retrying_keys)}, ${count(shard.deferred_keys)}, ${count(shard.parked_keys)}`],
    ["breaker", `${shard.breaker || "–"}${shard.last_error ? `, last error ${shard.last_error}` : ""}`],
    ["hottest key", shard.hot_key ? `${shard.hot_key}, ${percent(shard.hot_key_share)} of the shard` : "–"],
  ];
  return {
    key: `${shard.shard_id} detail`,
    kind: "detail",
    span: (cell) => {
      let list = cell.firstElementChild;
      if (!list) {
        list = element("dl", undefined, { class: "facts" });
        cell.append(list);
      }
      drawFacts(list, facts);
    },
  };
}

// Parents above their children. What is finished at the top of a tree is folded into one line.
function lineage(live) {
  const all = new Map(current.finished.map((shard) => [shard.shard_id, { ...shard, state: "done", done: true }]));
  for (const shard of live) all.set(shard.shard_id, shard);
  const children = new Map();
  const roots = [];
  for (const shard of all.values()) {
    const parent = (shard.parents || []).find((id) => all.has(id));
    if (parent === undefined) roots.push(shard);
    else children.set(parent, [...(children.get(parent) || []), shard]);
  }
  const trees = roots.map((root) => {
    const members = [];
    const walk = (shard, depth, done) => {
      members.push({ shard, depth, done });
      for (const child of (children.get(shard.shard_id) || []).sort(worstFirst)) walk(child, depth + 1, done + (child.done ? 1 : 0));
    };
    walk(root, 0, root.done ? 1 : 0);
    const alive = members.filter(({ shard }) => !shard.done).map(({ shard }) => shard);
    return { root, members, alive, worst: alive.sort(worstFirst)[0] };
  });
  const living = trees.filter((tree) => tree.worst).sort((a, b) => worstFirst(a.worst, b.worst));
  return living.flatMap(({ root, members }) => {
    const finished = members.filter(({ shard }) => shard.done).length;
    const isOpen = opened.has(root.shard_id);
    const rows = finished ? [foldOf(root.shard_id, finished, isOpen)] : [];
    for (const { shard, depth, done } of members)
      if (isOpen || !shard.done) rows.push({ ...shard, depth: isOpen ? depth + 1 : depth - done + (finished ? 1 : 0) });
    return rows;
  });
}

function foldOf(root, finished, isOpen) {
  return {
    key: `${root} fold`,
    kind: "fold",
    span: (cell) => {
      let button = cell.firstElementChild;
      if (!button) {
        button = element("button", "", { type: "button" });
        button.addEventListener("click", () => {
          if (!opened.delete(root)) opened.add(root);
          drawShards();
        });
        cell.append(button);
      }
      button.setAttribute("aria-expanded", String(isOpen));
      say(button, `${plural(finished, "finished shard")} before`);
    },
  };
}

function drawShards() {
  if (!current) return;
  const wanted = byId("find").value.trim().toLowerCase();
  const show = byId("show").value;
  const isTree = byId("view").value === "lineage";
  const total = current.shards.reduce((sum, shard) => sum + (shard.read_rate || 0), 0);
  const chosen = selected();
  const matches = current.shards
    .map((shard) => (shard.read_rate !== undefined && total > 0 ? { ...shard, share: Math.round((shard.read_rate / total) * 1000) / 1000 } : shard))
    .filter((shard) => {
      if (show === "trouble" && trouble(shard) > 3) return false;
      if (show === "mine" && !shard.mine) return false;
      if (show === "free" && shard.owner) return false;
      return !wanted || `${shard.shard_id} ${shard.owner || ""} ${shard.state} ${why(shard)}`.toLowerCase().includes(wanted);
    });
  const rows = isTree ? lineage(matches) : shardTable.inOrder(matches.sort(worstFirst));
  const pages = Math.max(1, Math.ceil(rows.length / PAGE));
  if (drawShards.chosen !== chosen) {
    const place = rows.findIndex((row) => row.shard_id === chosen);
    if (place >= 0) page = Math.floor(place / PAGE);
    drawShards.chosen = chosen;
  }
  page = Math.min(page, pages - 1);
  const shown = rows.slice(page * PAGE, (page + 1) * PAGE);
  shardTable.draw(shown.flatMap((row) => (row.shard_id === chosen && !row.done ? [row, detailOf(row)] : [row])));
  say(byId("shards-count"), matches.length === current.shards.length
    ? `${count(matches.length)}${current.finished_count ? `, and ${count(current.finished_count)} finished` : ""}`
    : `${count(matches.length)} of ${count(current.shards.length)}`);
  byId("pages").hidden = pages === 1;
  say(byId("page"), `page ${page + 1} of ${pages}`);
  byId("before").disabled = page === 0;
  byId("after").disabled = page === pages - 1;
  section("shards", true);
}

// --- everything else ----------------------------------------------------------------------------------------

function drawFacts(list, facts) {
  if (list.children.length !== facts.length * 2) list.replaceChildren(...facts.flatMap(() => [element("dt"), element("dd")]));
  facts.forEach(([name, value], index) => {
    say(list.children[index * 2], name);
    say(list.children[index * 2 + 1], value);
  });
}

const fleetTable = new Table(byId("fleet"), [
  { name: "worker", head: true, text: (row) => worker(row.incarnation) + (row.mine ? " (this one)" : "") },
  { name: "leases", number: true, text: (row) => count(row.leases) + (row.capacity ? ` of ${count(row.capacity)}` : "") },
  { name: "version", text: (row) => row.version || "–" },
  { name: "up", number: true, text: (row) => (row.started_at ? duration(serviceNow() - row.started_at) : "–") },
  { name: "state", text: (row) => (row.leaving ? "leaving" : row.failing.length ? "working, but for keys that fail" : "working") },
], { key: (row) => row.incarnation, mark: (row) => (row.leaving || row.failing.length ? "warning" : "") });

const keyTable = new Table(byId("keys"), [
  { name: "key (digest)", head: true, text: (row) => row.digest },
  { name: "state", text: (row) => row.state },
  { name: "shard", text: (row) => row.shard_id || "–" },
  { name: "since", number: true, text: (row) => (row.since ? duration(serviceNow() - row.since) : "–") },
], { key: (row) => `${row.digest} ${row.state} ${row.shard_id}` });

const errorTable = new Table(byId("errors"), [
  { name: "error", head: true, text: (row) => (row.type ? `${row.event}: ${row.type}` : row.event) },
  { name: "times", number: true, text: (row) => count(row.count) },
  { name: "last", number: true, text: (row) => `${duration(Math.max(0, now() - row.last))} ago` },
  { name: "first", number: true, text: (row) => clock(row.first) },
  { name: "where", text: (row) => [row.place, row.shards > 1 ? plural(row.shards, "shard") : row.shard_id].filter(Boolean).join(", ") || "–" },
  { name: "text", text: (row) => row.text || "" },
], { key: (row) => `${row.event} ${row.type}` });

const callTable = new Table(byId("calls"), [
  { name: "operation", head: true, text: ([operation]) => operation },
  { name: "an hour", number: true, text: ([, calls]) => count(Math.round(calls)) },
  { name: "$ a month", number: true, text: ([operation]) => dollars(current.call_costs.by_operation[operation]) },
], { key: ([operation]) => operation });

function drawProblems(problems) {
  const list = byId("problems");
  const known = new Map([...list.children].map((item) => [item.dataset.code, item]));
  arrange(list, problems.map((problem, index) => {
    const item = known.get(problem.code) || makeProblem(problem);
    item.dataset.severity = problem.severity;
    const [text, help, command, shards] = item.children;
    say(text, problem.text);
    text.hidden = index === 0; // the headline says it
    say(help, problem.help);
    command.hidden = !problem.command;
    say(command.firstElementChild, problem.command);
    shards.hidden = !problem.shards.length;
    if (shards.shown !== String(problem.shards)) {
      shards.shown = String(problem.shards);
      shards.replaceChildren(...problem.shards.map((id) => element("a", id, { href: `#shard=${encodeURIComponent(id)}` })));
    }
    return item;
  }));
}

function makeProblem({ code }) {
  const item = element("li", undefined, { "data-code": code });
  const command = element("p", undefined, { class: "command" });
  command.append(element("code"));
  if (navigator.clipboard) {
    const button = element("button", "Copy", { type: "button" });
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(command.firstElementChild.textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    command.append(button);
  }
  item.append(element("p", "", { class: "text" }), element("p", "", { class: "help" }), command, element("p", "", { class: "ids" }));
  return item;
}

const ICONS = { critical: "c62828", warning: "b26a00", info: "3b6fb6", ok: "18794e" };

function drawVerdict(severity, headline, problems) {
  byId("verdict").dataset.severity = severity;
  byId("verdict").hidden = false;
  say(byId("headline"), headline);
  drawProblems(problems);
  byId("icon").href = byId("icon").href.replace(/fill='%23[0-9a-f]+'/, `fill='%23${ICONS[severity] || "888888"}'`);
}

const parts = new Map();

function listParts() {
  for (const title of document.querySelectorAll("h2")) {
    const name = title.id.replace("-title", "");
    const item = element("li");
    item.append(element("a", title.firstChild.textContent.trim(), { href: `#${title.id}` }));
    item.hidden = true;
    title.tabIndex = -1;
    parts.set(name, item);
    byId("parts").append(item);
  }
}

function section(name, isShown, note) {
  byId(`${name}-section`).hidden = !isShown;
  parts.get(name).hidden = !isShown;
  if (note !== undefined) say(byId(`${name}-count`), note);
}

function draw(status) {
  current = status;
  drawVerdict(status.severity, status.headline, status.problems);
  const title = status.application ? `${status.application} · ${status.table}` : "stream-consumer";
  document.title = status.severity === "ok" ? title : `${status.severity}: ${title}`;
  section("errors", status.errors.length, count(status.errors.reduce((sum, group) => sum + group.count, 0)));
  errorTable.draw(status.errors);
  byId("errors").classList.toggle("without-texts", !status.errors.some((group) => group.text));
  if (!status.application) return; // it starts
  say(byId("application"), status.application);
  say(byId("table"), status.table);
  drawNumbers(status);
  drawShards();
  fleetTable.draw(status.fleet);
  section("fleet", status.fleet.length, count(status.fleet.length));
  keyTable.draw(status.keys);
  section("keys", status.keys.length, "");
  const calls = Object.entries(status.history.calls_per_hour).sort((a, b) => b[1] - a[1]);
  callTable.draw(calls);
  const { dollars_a_month: month, prices_as_of: day, prices_of: region } = status.call_costs;
  say(byId("calls-cost"), month === null ? "" : `About $${dollars(month)} a month at this rate, an estimate: list prices of ${region} as of ${day}, so check yours. Regions differ; your discounts and the free tier are not in it.`);
  section("calls", calls.length);
  drawFacts(byId("totals"), Object.entries(status.totals).map(([name, value]) => [name.replaceAll("_", " "), count(value)]));
  section("totals", true);
  drawFacts(byId("config"), Object.entries(status.changed_settings));
  section("config", Object.keys(status.changed_settings).length);
  say(byId("about"), `${status.incarnation} · version ${status.version} · started ${moment(status.started_at)} · ${status.stream_arn}`);
}

// --- live ---------------------------------------------------------------------------------------------------

let tag = "";
let timer = 0;
let isPaused = false;
let answeredAt = 0; // by this machine's clock, ms
let ahead = 0; // by how many seconds that is ahead of the worker's

const now = () => Date.now() / 1000 - ahead; // by the clock of the worker's machine, as the times of errors
const serviceNow = () => now() - (current.clock_ahead || 0); // by that of AWS, as all others

async function ask() {
  const answer = await fetch("/status.json", { cache: "no-store", headers: tag ? { "If-None-Match": tag } : {} });
  if (answer.status !== 200 && answer.status !== 304) throw new Error(`HTTP ${answer.status}`);
  const date = Date.parse(answer.headers.get("Date")) / 1000;
  const reported = Date.parse(answer.headers.get("Last-Modified")) / 1000;
  if (date) ahead = Date.now() / 1000 - date;
  if (answer.status === 200) {
    tag = answer.headers.get("ETag") || "";
    draw(await answer.json());
  }
  answeredAt = Date.now();
  return date && reported ? date - reported : 0;
}

async function poll() {
  clearTimeout(timer);
  if (isPaused || document.hidden) return;
  const live = byId("live-text");
  try {
    const age = await ask();
    live.dataset.state = age > STALE ? "stale" : "live";
    say(live, age > STALE ? `nothing new for ${duration(age)}` : "live");
    live.title = `last answer at ${clock(answeredAt / 1000)} UTC`;
  } catch {
    live.dataset.state = "stale";
    const since = answeredAt ? `since ${clock(answeredAt / 1000)} UTC` : "so far";
    say(live, "no answer");
    drawVerdict("critical", `This worker has given no answer ${since}.`, [
      { code: "unreachable", severity: "critical", text: "", command: "", shards: [],
        help: "It has ended, or cannot be reached from here. What is below is from before; another worker's page says who has its shards." },
    ]);
    tag = ""; // so that the next answer is drawn whatever it says
  }
  clearTimeout(timer);
  if (!isPaused && !document.hidden) timer = setTimeout(poll, POLL);
}

function start() {
  byId("undrawn").hidden = true;
  listParts();
  const live = byId("live");
  const text = element("span", "connecting", { id: "live-text" });
  const button = element("button", "Pause", { type: "button", id: "pause" });
  button.addEventListener("click", () => {
    isPaused = !isPaused;
    button.textContent = isPaused ? "Resume" : "Pause";
    if (isPaused) {
      text.dataset.state = "paused";
      say(text, "paused");
    }
    poll();
  });
  live.append(text, button);
  for (const [id, event] of [["find", "input"], ["show", "change"], ["view", "change"]])
    byId(id).addEventListener(event, () => { page = 0; drawShards(); });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  for (const [id, step] of [["before", -1], ["after", 1]])
    byId(id).addEventListener("click", () => {
      page += step;
      drawShards();
      byId("shards-title").focus();
    });
  addEventListener("hashchange", () => {
    drawShards();
    document.querySelector("tr.selected")?.scrollIntoView({ block: "center" });
  });
  document.addEventListener("visibilitychange", poll);
  poll();
}

start();
