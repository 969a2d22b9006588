"""Words from outside the tiny world. The tokenizer keeps pieces for them, and copying games give the pieces a meaning.

Without them text of real data sets, and the data of the quickstart, would fall into single letters.
"""

from __future__ import annotations

from .turns import word_list

COMMON_WORDS = word_list("""
the of and to in is that it for was on are as with they be at one have this from or had by word but
what some we can out other were all there when up use your how said an each she which do their time if will way about
many then them write would like so these her long make thing see him two has look more day could go come did number
sound no most people my over know water than call first who may down side been now find any new work part take get place
made live where after back little only round man year came show every good me give our under name very through just form
sentence great think say help low line differ turn cause much mean before move right boy old too same tell does set
three want air well also play small end put home read hand port large spell add even land here must big high such follow
act why ask men change went light kind off need house picture try us again animal point mother world near build self
earth father head stand own page should country found answer school grow study still learn plant cover food sun four
between state keep eye never last let thought city tree cross farm hard start might story saw far sea draw left late run
while press close night real life few north open seem together next white children begin got walk example ease paper
group always music those both mark often letter until mile river car feet care second book carry took science eat room
friend began idea fish mountain stop once hear horse cut sure watch color face wood main enough plain girl usual young
ready above ever red list though feel talk bird soon body dog family direct leave song measure door product black short
class wind question happen complete ship area half rock order fire south problem piece told knew pass since top whole
king space heard best hour better true during hundred five remember step early hold west ground interest reach fast
model data train training plugin config file folder adapter command option option key value text row token tokenizer
language program computer install list check plan report save load export chat server memory device speed step rate
batch size loss test error message key default setting method library version package source template format column
example dataset score image audio video prompt response instruction output input system user assistant project kit
fine tune tuning tuned rank layer weight parameter gradient optimizer learning evaluation result directory path web
page browser open close print type enter describe generate create provide explain include following given process
information important different several possible person human health energy history government business company
technology development research science education environment community experience ability analysis approach benefit
increase reduce improve support understand consider require allow available according however therefore because
although another without within between against toward across among something nothing everything someone anyone
made plugins configs rows runs tokens models adapters options commands files folders weights layers steps small
""")

FRAGMENTS = word_list("""
ftk train.yaml config.yaml data.json --help --version dry-run --dry-run fine-tuning ftk_lora run.json README.md main.py
pip install plugins list options schema model.safetensors 0.1 1e-4 learning_rate lora_rank cutoff_len output_dir
model_name_or_path finetuning_type num_train_epochs /home/user {"key":"value"} [1,2,3] print("hello") def return import
class for if else None True False x=1 a+b=c http://localhost:8000 @ftk.option #1 50% $5 c++ ftk:// tiny-chat
LoRA YAML JSON CPU GPU HTML API SQL
""")
