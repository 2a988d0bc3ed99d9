"use strict";
(async () => {
  const page = JSON.parse(document.getElementById("page-data").textContent);
  const narrow = window.matchMedia("(max-width: 600px)");

  // Plotly comes as gzip in base64: a third of its own size. Its text is run by the hash in the page's policy.
  async function loadPlotly() {
    const packed = atob(document.getElementById("plotly-packed").textContent);
    const bytes = Uint8Array.from(packed, (mark) => mark.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    if (!window.Plotly) throw new Error("the drawing library did not start");
  }

  function place(name) {
    return document.querySelector(`[data-chart="${name}"]`);
  }

  // Of 1, 1.5, 2, 3, 5, 7, 10, ... only 1, 2, 5 fit a phone, unless latencies are so near that these are out of view.
  function fewerTicks(axis, data) {
    const shown = data.flatMap((trace) => trace.x ?? []).filter((value) => value > 0);
    const [low, high] = shown.reduce(([least, most], x) => [Math.min(least, x), Math.max(most, x)], [Infinity, 0]);
    const all = axis.ticktext.map((_, at) => at);
    const few = all.filter((at) => /^(0\.)?0*[125]0*$/.test(axis.ticktext[at]));
    const seen = few.filter((at) => low <= axis.tickvals[at] && axis.tickvals[at] <= high);
    const kept = seen.length > 1 ? few : all;
    const of = (values) => kept.map((at) => values[at]);
    return { ...axis, tickangle: 0, ticktext: of(axis.ticktext), tickvals: of(axis.tickvals) };
  }

  // Two plots side by side on a phone have room for some 16 letters under each, and as many beside them.
  function pair(layout) {
    for (const axis of [layout.xaxis, layout.xaxis2]) {
      axis.title = { text: wrapped(axis.title?.text ?? "", 18), font: { size: 10 }, standoff: 12 };
      axis.nticks = 3;
    }
    const cut = (text) => (text.length > 17 && !text.includes("&") ? `\u2026${text.slice(-16)}` : text);
    const short = (text) => (text.startsWith("<b>") ? `<b>${cut(text.slice(3, text.indexOf(",")))}</b>` : cut(text));
    if (layout.yaxis?.ticktext) layout.yaxis.ticktext = layout.yaxis.ticktext.map(short);
    layout.yaxis = { ...layout.yaxis, tickfont: { size: 10 } };
    layout.margin.b += 50;
    layout.height += 50;
  }

  function wrapped(text, most) {
    const lines = [];
    for (const word of text.split(" ")) {
      const last = lines.at(-1);
      if (last !== undefined && last.length + word.length < most) lines[lines.length - 1] = `${last} ${word}`;
      else lines.push(word);
    }
    return lines.join("<br>");
  }

  const drawn = new Map();

  function draw(name, figure) {
    const frame = place(name);
    if (!frame || !figure) return;
    drawn.set(name, figure);
    const layout = structuredClone(figure.layout);
    layout.height = layout.height || (frame.classList.contains("h300") ? 300 : 460);
    if (narrow.matches) {
      // On a phone the legend goes below, and the title wraps above.
      const named = layout.showlegend === false ? [] : figure.data.filter((trace) => trace.showlegend !== false);
      const rows = named.length > 1 ? Math.ceil(named.length / 2) : 0;
      const plot = layout.height - 45 - 60;
      layout.legend = { ...layout.legend, y: -62 / plot, yanchor: "top", font: { size: 11 } };
      if (layout.xaxis?.ticktext) layout.xaxis = fewerTicks(layout.xaxis, figure.data);
      layout.title = { ...layout.title, font: { size: 12 } };
      layout.margin = { ...layout.margin, l: Math.min(layout.margin?.l ?? 50, 110), r: 10, t: 45, b: 60 + 20 * rows };
      layout.height += 20 * rows;
      if (layout.xaxis2) pair(layout);
    }
    frame.querySelector(".waiting")?.remove();
    const options = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
    const data = structuredClone(figure.data);
    // Trial numbers beside points cover each other on a phone; a tap on the point tells them.
    if (narrow.matches) data.forEach((trace) => { trace.mode = trace.mode?.replace("+text", ""); });
    window.Plotly.react(frame, data, layout, options);
  }

  function option(value, label) {
    const made = document.createElement("option");
    made.value = String(value);
    made.textContent = label;
    return made;
  }

  // Plotly reads some HTML in names and labels.
  function inert(text) {
    return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  }

  function curvesFigure(member, chosen) {
    const names = page.classes.names;
    const lines = [];
    member.curves.forEach((curve, index) => {
      if (!curve || index === chosen) return;
      lines.push(curveTrace(curve, names[index], { color: "#999999", width: 1 }, 0.35, member, index));
    });
    const curve = member.curves[chosen];
    if (curve) lines.push(curveTrace(curve, names[chosen], { color: "#0072B2", width: 3 }, 1, member, chosen));
    const axis = { range: [0, 1.03], gridcolor: "#e3e3e3", zeroline: false };
    const title = `${names[chosen]}: average precision ${(member.average[chosen] / 1000).toFixed(3)}`;
    return {
      data: lines,
      layout: {
        template: "none", showlegend: false, hovermode: "closest", margin: { l: 55, r: 20, t: 50, b: 50 },
        font: { family: "system-ui, sans-serif", size: 13, color: "#222222" },
        title: { text: inert(title + (curve ? "" : " (curve left out)")), x: 0.02, font: { size: 15 } },
        xaxis: { ...axis, title: { text: "recall" } }, yaxis: { ...axis, title: { text: "precision" } },
      },
    };
  }

  function curveTrace(curve, name, line, opacity, member, index) {
    const x = [], y = [];
    for (let at = 0; at < curve.length; at += 2) {
      x.push(curve[at] / 1000);
      y.push(curve[at + 1] / 1000);
    }
    const label = `${inert(name)}, ${member.support[index]} ${page.classes.noun}`;
    return {
      type: "scatter", mode: "lines", x, y, line, opacity, name: label, text: label,
      hovertemplate: "%{text}<br>recall %{x:.2f}, precision %{y:.2f}<extra></extra>",
    };
  }

  function percent(mille) {
    return `${(mille / 10).toFixed(1)} %`;
  }

  // Nothing is known of classes without support: they come last.
  function weakestFirst(member) {
    const by = member[page.classes.weakest_by], none = member.support.map((support) => Number(support === 0));
    const order = page.classes.names.map((_, index) => index);
    return order.sort((one, other) => none[one] - none[other] || by[one] - by[other] || one - other);
  }

  function fillTable(member, chosen, choose) {
    const order = weakestFirst(member);
    const body = document.querySelector("#class-table tbody");
    body.replaceChildren(...order.map((index) => {
      const row = document.createElement("tr");
      const cells = [
        page.classes.names[index], member.support[index], percent(member.precision[index]),
        percent(member.recall[index]), (member.average[index] / 1000).toFixed(3),
      ];
      cells.forEach((words, column) => {
        const cell = document.createElement(column ? "td" : "th");
        if (!column) cell.scope = "row";
        cell.textContent = String(words);
        row.append(cell);
      });
      row.classList.toggle("chosen", index === chosen);
      row.addEventListener("click", () => choose(index));
      return row;
    }));
  }

  function startClasses() {
    const { names = [], members = [], first = 0 } = page.classes ?? {};  // a task may have none
    const memberPick = document.getElementById("member"), classPick = document.getElementById("class");
    if (!members.length || !memberPick) return;
    memberPick.append(...members.map((member, index) => option(index, member.label)));
    const sorted = names.map((name, index) => [name, index]).sort((one, other) => one[0].localeCompare(other[0]));
    classPick.append(...sorted.map(([name, index]) => option(index, name)));
    memberPick.value = String(first);
    const start = members[first];
    const drawable = weakestFirst(start).filter((index) => start.support[index] > 0 && start.curves[index]);
    classPick.value = String(drawable[0] ?? 0);
    const show = () => {
      const member = members[Number(memberPick.value)], chosen = Number(classPick.value);
      draw("curves", curvesFigure(member, chosen));
      fillTable(member, chosen, (index) => { classPick.value = String(index); show(); });
    };
    memberPick.addEventListener("change", show);
    classPick.addEventListener("change", show);
    show();
  }

  function startHistograms() {
    const pick = document.getElementById("histogram-member");
    if (!pick) return;
    const show = () => draw("histogram", page.histograms[pick.value]);
    pick.addEventListener("change", show);
    show();
  }

  try {
    await loadPlotly();
    for (const [name, figure] of Object.entries(page.figures)) draw(name, figure);
    startClasses();
    startHistograms();
    // What is left has no data, as before the first trial of full length or within all limits.
    for (const note of document.querySelectorAll(".waiting")) note.textContent = "Nothing to draw yet.";
    narrow.addEventListener("change", () => drawn.forEach((figure, name) => draw(name, figure)));
    document.documentElement.dataset.ready = "yes";
  } catch (error) {
    // The tables hold the same numbers; a browser without DecompressionStream is older than 2023.
    for (const note of document.querySelectorAll(".waiting")) {
      note.textContent = `This browser cannot draw the figure (${error.message}). The tables hold the same numbers.`;
    }
    document.documentElement.dataset.ready = "failed";
    throw error;
  }
})();
