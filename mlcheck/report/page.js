"use strict";
// Opens the details of a cell, moves among cells by keyboard, and filters the checks. What comes
// from the report is only ever given to textContent: it is text, whatever it looks like.
(() => {
  const MOST = 50; // findings that are shown at once
  const matrix = document.getElementById("matrix");
  const dialog = document.getElementById("details");
  const content = document.getElementById("details-content");
  let parsed = null;
  const report = () =>
    (parsed ??= JSON.parse(document.getElementById("report").textContent));

  function make(tag, text, className) {
    const element = document.createElement(tag);
    if (text !== undefined && text !== null) element.textContent = text;
    if (className) element.className = className;
    return element;
  }

  // -- details --

  function copyButton(text) {
    const button = make("button", "Copy", "copy");
    button.type = "button";
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
      } catch {
        // Not allowed here (a page without https): the text is marked, to be copied by hand.
        getSelection().selectAllChildren(button.previousElementSibling);
        button.textContent = document.execCommand("copy") ? "Copied" : "Marked: press Ctrl+C";
      }
    });
    return button;
  }

  function entry(list, title, text) {
    if (text === null || text === undefined || text === "") return;
    list.append(make("dt", title), make("dd", text));
  }

  function findingArticle(finding) {
    const article = make("article");
    article.append(make("h3", finding.subject + (finding.waived ? " (waived)" : "")));
    const list = make("dl");
    entry(list, "found", finding.found);
    entry(list, "expected", finding.expected);
    entry(list, "by", finding.source);
    article.append(list);
    if (finding.by_hand) {
      article.append(make("p", "reproduce", "quiet"), make("pre", finding.by_hand));
      article.append(copyButton(finding.by_hand));
    }
    return article;
  }

  function addFindings(part, findings, from) {
    for (const finding of findings.slice(from, from + MOST)) part.append(findingArticle(finding));
    const left = findings.length - from - MOST;
    if (left > 0) {
      const more = make("button", `Show ${Math.min(left, MOST)} more of ${left}`);
      more.type = "button";
      more.addEventListener("click", () => {
        more.remove();
        addFindings(part, findings, from + MOST);
      });
      part.append(more);
    }
  }

  function resultPart(result) {
    const part = make("div");
    const list = make("dl");
    entry(list, "image", result.image);
    entry(list, "outcome", result.outcome);
    entry(list, "rule", result.rule);
    entry(list, "why", result.message);
    entry(list, "fix", result.remedy && result.outcome !== "passed" ? result.remedy : null);
    for (const waiver of result.waivers) {
      const over = waiver.expired ? ", which is over" : "";
      entry(list, "waived", `until ${waiver.until}${over}: ${waiver.reason} (${waiver.source})`);
    }
    part.append(list);
    const findings = make("div");
    addFindings(findings, result.findings, 0);
    const more = make("dl");
    if (result.findings_left_out) {
      entry(more, "more", `${result.findings_left_out} findings, too many for a report`);
    }
    if (result.checked) entry(more, "compared", String(result.checked));
    for (const note of result.notes) entry(more, "note", note);
    entry(more, "test", result.test);
    if (result.check) {
      const page = result.page ? ` (${result.page})` : "";
      entry(more, "explained by", `mlcheck explain ${result.check}${page}`);
    }
    part.append(findings, more);
    return part;
  }

  function show(indices) {
    const results = indices.map((index) => report().results[index]).filter(Boolean);
    if (!results.length) return;
    content.replaceChildren();
    const top = make("div", undefined, "top");
    const title = make("h2", results.find((one) => one.check)?.check ?? "a test");
    title.id = "details-title";
    const close = make("button", "Close");
    close.type = "button";
    close.addEventListener("click", () => dialog.close());
    top.append(title, close);
    content.append(top, ...results.map(resultPart));
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  }

  const indicesOf = (link) =>
    (link.dataset.results ?? link.getAttribute("href").slice(2)).split(" ").map(Number);

  function showHash() {
    const found = /^#r(\d+)$/.exec(location.hash);
    if (!found) return;
    const link = matrix.querySelector(`a[href="${found[0]}"]`);
    show(link ? indicesOf(link) : [Number(found[1])]);
  }

  function setHash(hash) {
    history.replaceState(null, "", location.href.split("#")[0] + hash);
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#r"]');
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    if (matrix.contains(link)) enter(link, false);
    setHash(link.getAttribute("href"));
    show(indicesOf(link));
  });
  dialog.addEventListener("close", () => setHash(""));
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside it
  });
  addEventListener("hashchange", showHash);

  // -- keyboard: one cell is reached by Tab, the others by arrows --

  let current = null;

  function enter(link, focus) {
    if (current) current.tabIndex = -1;
    current = link;
    current.tabIndex = 0;
    const cell = link.parentElement;
    const image = matrix.tHead.rows[0].cells[cell.cellIndex].querySelector("span").textContent;
    const outcome = link.className.split(" ")[1];
    link.setAttribute("aria-label", `${cell.parentElement.cells[0].textContent}, ${image}: ${outcome}`);
    if (focus) link.focus();
  }

  function step(cell, down, right) {
    const rows = [...matrix.tBodies[0].rows].filter((row) => !row.hidden);
    let row = rows.indexOf(cell.parentElement);
    let column = cell.cellIndex;
    const columns = matrix.tHead.rows[0].cells.length;
    for (;;) {
      row += Math.sign(down);
      column += Math.sign(right);
      if (row < 0 || row >= rows.length || column < 1 || column >= columns) return null;
      const link = rows[row].cells[column].querySelector("a");
      if (link) return link;
    }
  }

  function edge(cell, down, right) {
    let last = null;
    for (let link = step(cell, down, right); link; link = step(link.parentElement, down, right)) {
      last = link;
    }
    return last;
  }

  const MOVES = {
    ArrowDown: [step, 1, 0], ArrowUp: [step, -1, 0],
    ArrowRight: [step, 0, 1], ArrowLeft: [step, 0, -1],
    Home: [edge, 0, -1], End: [edge, 0, 1],
  };

  matrix.addEventListener("keydown", (event) => {
    const link = event.target.closest("td a");
    if (!link || event.altKey || event.metaKey) return;
    if (event.key === " ") {
      event.preventDefault();
      link.click();
      return;
    }
    const move = MOVES[event.key];
    if (!move) return;
    event.preventDefault();
    let [how, down, right] = move;
    if (event.ctrlKey && how === edge) [down, right] = [right, 0]; // first, last row
    const found = how(link.parentElement, down, right);
    if (found) enter(found, true);
  });

  for (const link of matrix.querySelectorAll("td a")) link.tabIndex = -1;
  const first = matrix.querySelector("td a");
  if (first) enter(first, false);

  // -- filter --

  const form = document.getElementById("filter");
  const search = make("input");
  search.type = "search";
  search.placeholder = "Filter checks";
  search.setAttribute("aria-label", "Filter checks by name");
  const outcome = make("select");
  outcome.setAttribute("aria-label", "Which checks are shown");
  for (const [value, words] of [
    ["", "all checks"],
    ["failed error", "what is wrong"],
    ["failed error waived passed", "what was judged"],
  ]) {
    outcome.append(new Option(words, value));
  }
  form.append(search, outcome);
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    const words = search.value.trim().toLowerCase();
    const wanted = outcome.value.split(" ");
    let any = false;
    for (const row of matrix.tBodies[0].rows) {
      row.hidden =
        !row.cells[0].textContent.toLowerCase().includes(words) ||
        (outcome.value !== "" && !wanted.includes(row.className));
      any ||= !row.hidden;
    }
    document.getElementById("none").hidden = any;
    const link = [...matrix.tBodies[0].rows].find((row) => !row.hidden)?.querySelector("a");
    if (link && current?.closest("tr").hidden) enter(link, false);
  });

  showHash();
})();
